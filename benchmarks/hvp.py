"""One cached Hessian-vector product, side by side with torch, JAX, curvlinops and PyHessian, all
measured in one run.

    python benchmarks/hvp.py                          # 29 workloads, half an hour
    python benchmarks/hvp.py --quick --no-peers       # fastcurv alone, in a minute
    python benchmarks/hvp.py --workload mnist --dtype float32 --json mnist.json
    python benchmarks/hvp.py --products --rounds 5 --workload tiny digits mnist  # 2 minutes
    python benchmarks/hvp.py --json benchmarks/results/NAME.json  # for the tables of docs/speed.md

Each contender has a process of its own, confined to the same processors, with the same data in the
same dtype. Rounds are interleaved: one short timing of every call of every contender, then again,
many times; the best counts. So a noisy neighbour hits all alike, and one quiet moment is enough.
"""

import importlib.metadata
import os
import platform
import time

import command
import numpy as np
import tables
from peers import BLOCK, CONTENDERS, Child, Unavailable
from workloads import DTYPES, WORKLOADS

OURS = "fastcurv"
OURS_ONE_THREAD = "fastcurv, 1 thread"
MAX_RELATIVE_GAP = {
    "float32": 3e-3,
    "float64": 1e-9,
}  # between contenders, relative to the product's norm


def main(argv=None):
    args = parse_arguments(argv)
    with command.run(args) as numbers:
        compare_contenders(args, numbers)


def compare_contenders(args, numbers):
    """Measure all workloads in all dtypes, and print the tables."""
    children = open_children(args)
    try:
        facts = machine_facts(args, children[OURS])
        tables.print_head(facts)
        numbers |= {"machine": facts, "records": (records := [])}
        for name in args.workload:
            for dtype in args.dtype:
                command.begin_step(f"{name}, {dtype}")
                records.append(measure(children, name, dtype, args))
                tables.print_record(records[-1], first=len(records) == 1)
        tables.print_summary(records)
        if not args.products:
            tables.print_other_calls(records)
        if args.bounds:
            tables.print_bounds(records)
    finally:
        for child in children.values():
            child.close()


def parse_arguments(argv):
    parser = command.parser(__doc__, bounds=True)
    parser.add_argument(
        "--workload", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), help="(default all)"
    )
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES, help="(default both)")
    parser.add_argument("--threads", type=int, default=2, help="of every contender (default 2)")
    parser.add_argument("--rounds", type=int, default=None, help="interleaved rounds (default 15)")
    parser.add_argument("--quick", action="store_true", help="3 rounds of shorter timings")
    parser.add_argument("--products", action="store_true", help="products alone, no other calls")
    parser.add_argument("--blocks", action="store_true", help="with --products, blocks of 16, too")
    parser.add_argument(
        "--cpu-time",
        dest="clock",
        action="store_const",
        const="process_time",
        default="perf_counter",
        help="processor time, for a machine with other work (with --threads 1)",
    )
    parser.add_argument("--no-peers", action="store_true", help="fastcurv alone")
    args = parser.parse_args(argv)
    if args.products and args.bounds:
        parser.error("--bounds needs all calls: leave out --products.")
    args.rounds = args.rounds or (3 if args.quick else 15)
    args.seconds = 0.02 if args.quick else 0.05  # the least that one timing lasts
    return args


def open_children(args):
    """Start a process for each contender, and one more for fastcurv on one thread. Return them by
    name.
    """
    names = [OURS] if args.no_peers else list(CONTENDERS)
    children = {name: Child(name, args.threads) for name in names}
    if args.threads > 1:
        children[OURS_ONE_THREAD] = Child(OURS, 1)
    return children


def measure(children, name, dtype, args):
    """Build one workload for all contenders, time it in interleaved rounds, and return the
    record of the best time of each call.
    """
    workload = WORKLOADS[name]
    calls, answers, missing = {}, {}, {}
    for label, child in children.items():
        try:
            built = child.ask(do="build", workload=name, dtype=dtype, threads=child.threads)
        except Unavailable as reason:
            if label == OURS:
                raise
            missing[label] = str(reason)
            continue
        only = args.products or label == OURS_ONE_THREAD
        some = ("product", "block") if args.blocks else ("product",)
        wanted = [call for call in built["calls"] if call in some or not only]
        calls |= {(label, call): repeats_per_timing(child, call, args.seconds) for call in wanted}
        answers[label] = built["answer"]
    check_agreement(answers, dtype, f"{name}, {dtype}")
    seconds = {key: [] for key in calls}
    peaks = []
    for number in range(args.rounds):
        command.begin_step(f"{name}, {dtype}: round {number + 1} of {args.rounds}")
        peaks.append(children[OURS].ask(do="peak")["flops"])
        for (label, call), repeat in calls.items():
            answer = children[label].ask(do="time", call=call, repeat=repeat, clock=args.clock)
            seconds[label, call].append(answer["seconds"])
    best = {}
    for (label, call), rounds in seconds.items():
        best.setdefault(label, {})[call] = min(rounds) / (BLOCK if call == "block" else 1)
    every = {label: {} for label, _ in seconds}
    for (label, call), rounds in seconds.items():
        every[label][call] = rounds
    return record_of(workload, dtype, best, max(peaks), missing) | {"rounds": every}


def repeats_per_timing(child, call, least):
    """Return the number of calls that make one timing last ``least`` seconds."""
    once = child.ask(do="time", call=call, repeat=2)["seconds"]
    return max(1, int(np.ceil(least / once)))


def check_agreement(answers, dtype, where):
    """Exit unless all contenders computed the same product, without which times are not
    comparable.
    """
    expected = answers[OURS]
    for label, answer in answers.items():
        gap = max(abs(a - b) for a, b in zip(answer, expected)) / expected[0]
        if not gap <= MAX_RELATIVE_GAP[dtype]:
            raise SystemExit(f"{where}: {label} and {OURS} differ by {gap:.1e}: nothing to compare")


def record_of(workload, dtype, best, peak, missing):
    """Return the times in seconds, with the ratios that follow from them."""
    ours = best[OURS]
    peers = {
        label: times["product"]
        for label, times in best.items()
        if label not in (OURS, OURS_ONE_THREAD)
    }
    gradients = [t["gradient"] for label, t in best.items() if label != OURS and "gradient" in t]
    record = {
        "workload": workload.name,
        "dtype": dtype,
        "seconds": best,
        "missing": missing,
        "fma_peak": peak,
        "share_of_peak": workload.flops() / ours["product"] / peak,
        "ahead": min(peers.values()) / ours["product"] if peers else None,
        "threads": best[OURS_ONE_THREAD]["product"] / ours["product"]
        if OURS_ONE_THREAD in best
        else None,
    }
    if "gradient" not in ours:
        return record
    return record | {
        "block_share_of_peak": workload.flops() / ours["block"] / peak,
        "gradient_ahead": min(gradients) / ours["gradient"] if gradients else None,
        "product/gradient": ours["product"] / ours["gradient"],
        "floor product/gradient": workload.flops() / workload.flops("gradient"),
        "product/floor": ours["product"]
        / ours["gradient"]
        * workload.flops("gradient")
        / workload.flops(),
        "bind/gradient": ours["bind"] / ours["gradient"],
        "ggn/product": ours["ggn"] / ours["product"],
        "floor ggn/product": workload.flops("ggn") / workload.flops(),
        "quadratic/product": ours["quadratic"] / ours["product"],
        "block/product": ours["block"] / ours["product"],
    }


def installed_versions():
    """Return the versions of fastcurv and of the other libraries that are installed, by name."""
    names = ("fastcurv", "numpy", "scipy", "torch", "jax", "curvlinops-for-pytorch", "pyhessian")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine_facts(args, child):
    """Return the time, the machine and the settings of the run."""
    return {
        "time": time.strftime("%Y-%m-%d %H:%M"),
        "cpu": command.cpu_name(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "processors": os.cpu_count(),
        "threads": args.threads,
        "rounds": args.rounds,
        "clock": args.clock,
        "config": child.ask(do="config")["text"],
        "versions": installed_versions(),
    }


if __name__ == "__main__":
    main()
