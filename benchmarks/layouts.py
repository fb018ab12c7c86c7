"""What a product on a small net gains by each way of serving it that large nets do without.

    python benchmarks/layouts.py [--net tiny wine --dtype float64 --rounds 25]

The times of a product, and of a block of eight, without one of them over the time with all:

    across  samples lie in the lanes of vectors, where layers are narrower than vectors or ragged,
            or, with 64-byte vectors, what is kept of all samples comes from beyond the third-level
            cache
    narrow  the last layer has three units or fewer: its products go with the sweeps of the layer
            below it
    stack   several vectors of a block go through the same rows together
    folds   tanh and sigmoid under such a last layer: phi and phi' are kept in one number

``-`` where a net is not served that way. One thread, processor time, all variants in turns, the
median of the rounds' ratios: below 1.05 a way brings nothing.
"""

import statistics
import time

import command
import numpy as np
from workloads import DTYPES, WORKLOADS, Workload, flat

import fastcurv as fc
from fastcurv import _engine

FULL = (  # layers that fill vectors: samples are rows
    Workload("full-8", (8, 8, 8, 8), 1000, "tanh", "mse", large=False),
    Workload("full-16", (16, 16, 16, 16), 1000, "tanh", "mse", large=False),
    Workload("full-64", (32, 64, 32, 16), 1000, "tanh", "cross_entropy", large=False),
)
NAMES = ("sine", "tiny", "small-10", "small-13", "small-20", "diabetes", "cancer", "wine")
NAMES += ("digits", "tall-64", "tall-100", "tall-48", "tall-32", "deep-72", "ragged")
NETS = {name: WORKLOADS[name] for name in NAMES} | {w.name: w for w in FULL}
BLOCK = 8
WITHOUT = {"across": {}, "narrow": {"narrow": True}, "stack": {"stack": True}, "folds": {}}


def main(argv=None):
    args = parse(argv)
    with command.run(args) as numbers:
        numbers["rows"] = rows = []
        print(f"{'':10s}{'dtype':9s}{'product, us':>12s}" + head("product") + head("block"))
        for name in args.net:
            for dtype in args.dtype:
                command.step(f"{name}, {dtype}")
                rows.append(row(NETS[name], dtype, args.rounds))
                print(line(rows[-1]), flush=True)


def parse(argv):
    parser = command.parser(__doc__)
    command.some_of(parser, "--net", list(NETS))
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES, help="(default both)")
    parser.add_argument("--rounds", type=int, default=25, help="of all variants (default 25)")
    return parser.parse_args(argv)


def head(call):
    return f"   {call} without" + "".join(f"{name:>8s}" for name in WITHOUT)


def line(row):
    said = f"{row['net']:10s}{row['dtype']:9s}{row['microseconds']:12.1f}"
    for call in ("product", "block"):
        shares = (row["without"][name][call] for name in WITHOUT)
        said += " " * len(f"   {call} without")
        said += "".join(f"{'-' if share is None else f'{share:.2f}':>8s}" for share in shares)
    return said


def row(workload, dtype, rounds):
    """One net in one dtype: each variant's time over that with all of them."""
    calls = {name: variant(workload, dtype, name) for name in (None, *WITHOUT)}
    used = served(workload, calls)
    seconds = {}
    for call in ("product", "block"):
        repeat = max(1, int(0.004 / once(calls[None][call], 2)))
        for _ in range(rounds):
            for name, variants in calls.items():
                run = with_left_out(name, variants[call], repeat)
                seconds.setdefault((name, call), []).append(run)
    return {
        "net": workload.name,
        "dtype": dtype,
        "microseconds": 1e6 * min(seconds[None, "product"]),
        "without": {
            name: {
                call: ratio(seconds[name, call], seconds[None, call])
                if (name, call) in used
                else None
                for call in ("product", "block")
            }
            for name in WITHOUT
        },
    }


def variant(workload, dtype, name):
    """A net's product, and its product with a block, without one of the ways."""
    X, y, layers, directions = workload.problem(dtype)
    model = fc.MLP(workload.sizes, workload.activation, dtype=dtype)
    theta, v = flat(layers), flat(directions)
    block = np.ascontiguousarray(np.stack([np.roll(v, k) for k in range(BLOCK)], axis=1))
    leave_out(name)
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
        leave_out(None)
    return made


def leave_out(name):
    """From now on do without one of the ways; None: with all."""
    _engine.force_transposed(0 if name == "across" else -1)
    _engine.force_packed_pairs(0 if name == "folds" else -1)
    _engine.disable_kernels(**WITHOUT.get(name, {}))


def served(workload, calls):
    """The (way, call) that a net is served by; all variants must have made the same product."""
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


def once(call, repeat):
    begin = time.process_time()
    for _ in range(repeat):
        call()
    return max(1e-7, (time.process_time() - begin) / repeat)


def with_left_out(name, call, repeat):
    """Seconds of a call. Memory is laid out by now: what is left out here is left out of passes."""
    leave_out(name)
    try:
        call()
        return once(call, repeat)
    finally:
        leave_out(None)


def ratio(one, other):
    return statistics.median(a / b for a, b in zip(one, other))


if __name__ == "__main__":
    main()
