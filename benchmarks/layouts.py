"""What a product on a small net gains by each memory layout or shortcut that large nets do not use.

    python benchmarks/layouts.py [--net tiny wine --dtype float64 --rounds 25]

The time of a product, and of a block of eight, without one of them, over the time with all:

    across  the transposed layout (samples in SIMD lanes), for layers that are narrower than SIMD
            vectors or no multiple of them, or, with 64-byte vectors, for a state that exceeds the
            third-level cache
    narrow  fused products of an output layer of at most three units
    stack   several vectors of a block pass through the same rows together
    folds   phi and phi' of tanh and sigmoid below such an output layer packed into one number

``-`` where a net does not use it. One thread, processor time, all variants in turns, the median of
the rounds' ratios: below 1.05 it gains nothing.
"""

import statistics
import time

import command
import numpy as np
from workloads import DTYPES, WORKLOADS, Workload, flat

import fastcurv as fc
from fastcurv import _engine

FULL_WORKLOADS = (  # layers that fill SIMD vectors, so the layout is not transposed
    Workload("full-8", (8, 8, 8, 8), 1000, "tanh", "mse", large=False),
    Workload("full-16", (16, 16, 16, 16), 1000, "tanh", "mse", large=False),
    Workload("full-64", (32, 64, 32, 16), 1000, "tanh", "cross_entropy", large=False),
)
WORKLOAD_NAMES = ("sine", "tiny", "small-10", "small-13", "small-20", "diabetes", "cancer", "wine")
WORKLOAD_NAMES += ("digits", "tall-64", "tall-100", "tall-48", "tall-32", "deep-72", "ragged")
NETS = {name: WORKLOADS[name] for name in WORKLOAD_NAMES} | {w.name: w for w in FULL_WORKLOADS}
BLOCK = 8
WITHOUT = {"across": {}, "narrow": {"narrow": True}, "stack": {"stack": True}, "folds": {}}


def main(argv=None):
    args = parse_arguments(argv)
    with command.run(args) as numbers:
        numbers["rows"] = rows = []
        print(
            f"{'':10s}{'dtype':9s}{'product, us':>12s}"
            + column_heads("product")
            + column_heads("block")
        )
        for name in args.net:
            for dtype in args.dtype:
                command.begin_step(f"{name}, {dtype}")
                rows.append(measure_net(NETS[name], dtype, args.rounds))
                print(format_row(rows[-1]), flush=True)


def parse_arguments(argv):
    parser = command.parser(__doc__)
    command.add_names_option(parser, "--net", list(NETS))
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES, help="(default both)")
    parser.add_argument("--rounds", type=int, default=25, help="of all variants (default 25)")
    return parser.parse_args(argv)


def column_heads(call):
    return f"   {call} without" + "".join(f"{name:>8s}" for name in WITHOUT)


def format_row(row):
    text = f"{row['net']:10s}{row['dtype']:9s}{row['microseconds']:12.1f}"
    for call in ("product", "block"):
        shares = (row["without"][name][call] for name in WITHOUT)
        text += " " * len(f"   {call} without")
        text += "".join(f"{'-' if share is None else f'{share:.2f}':>8s}" for share in shares)
    return text


def measure_net(workload, dtype, rounds):
    """Measure one net in one dtype, and return the time of each variant over that with all."""
    calls = {name: calls_without(workload, dtype, name) for name in (None, *WITHOUT)}
    used = check_and_list_used(workload, calls)
    seconds = {}
    for call in ("product", "block"):
        repeat = max(1, int(0.004 / seconds_of(calls[None][call], 2)))
        for _ in range(rounds):
            for name, variants in calls.items():
                run = seconds_without(name, variants[call], repeat)
                seconds.setdefault((name, call), []).append(run)
    return {
        "net": workload.name,
        "dtype": dtype,
        "microseconds": 1e6 * min(seconds[None, "product"]),
        "without": {
            name: {
                call: median_ratio(seconds[name, call], seconds[None, call])
                if (name, call) in used
                else None
                for call in ("product", "block")
            }
            for name in WITHOUT
        },
    }


def calls_without(workload, dtype, name):
    """Return the product and the block product of a net without one layout or shortcut."""
    X, y, layers, directions = workload.problem(dtype)
    model = fc.MLP(workload.sizes, workload.activation, dtype=dtype)
    theta, v = flat(layers), flat(directions)
    block = np.ascontiguousarray(np.stack([np.roll(v, k) for k in range(BLOCK)], axis=1))
    disable_only(name)
    try:
        H = fc.Objective(model, X, y, workload.loss, n_threads=1).hessian(theta)
        out = np.empty_like(v)
        made = {
            "product": lambda: H.product(v, out=out),
            "block": lambda: H @ block,
            "answer": np.array(H @ v),
            "layout": H.layout,
        }
        made["block"]()
    finally:
        disable_only(None)
    return made


def disable_only(name):
    """Disable one layout or shortcut, and enable the others; None enables all."""
    _engine.force_transposed_layout(0 if name == "across" else -1)
    _engine.force_packed_pairs(0 if name == "folds" else -1)
    _engine.disable_kernels(**WITHOUT.get(name, {}))


def check_and_list_used(workload, calls):
    """Check that all variants compute the same product, and return the pairs of layout or shortcut
    and call that the net uses.
    """
    first = calls[None]["answer"]
    for made in calls.values():
        gap = np.abs(made["answer"] - first).max() / np.abs(first).max()
        assert gap < 1e5 * np.finfo(first.dtype).eps, f"{workload.name}: products differ by {gap}"
    across = calls[None]["layout"] != calls["across"]["layout"]
    used = {("across", "product"), ("across", "block")} if across else {("stack", "block")}
    if across and workload.sizes[-1] <= 3:
        used |= {("narrow", "product"), ("narrow", "block")}
    if calls[None]["layout"]["packed_pairs"]:
        used |= {("folds", "product"), ("folds", "block")}
    return used


def seconds_of(call, repeat):
    begin = time.process_time()
    for _ in range(repeat):
        call()
    return max(1e-7, (time.process_time() - begin) / repeat)


def seconds_without(name, call, repeat):
    """Return the seconds of a call with one shortcut disabled in passes; the layout is
    unchanged.
    """
    disable_only(name)
    try:
        call()
        return seconds_of(call, repeat)
    finally:
        disable_only(None)


def median_ratio(one, other):
    return statistics.median(a / b for a, b in zip(one, other))


if __name__ == "__main__":
    main()
