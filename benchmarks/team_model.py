"""Speed-up of products on more cores than this machine has: a model, checked at 1 and 2 threads.

    python benchmarks/team_model.py [--threads 1 2 4 8 16 32 64]

A product on T threads takes

    runs * wake * t / 2  +  work * max(ceil(items / t) / items, share / min(t, CHANNELS))

with t the number of threads that the engine uses for a job, `runs` the number of jobs
(layer-parallel: one for each product and sweep; panel-parallel: one or two), `items` the number of
parts of a job, which does not depend on the number of threads, `work` the measured time of one
thread, `share` the part of it in which a thread waits for memory that all cores share, and `wake`
the seconds that a job takes to start at two threads. Each further thread adds as much, because the
caller sets each thread's share and waits for the last one. `wake` and `share` are assumed, not
measured: the last column shows how far the model is off.

The table marks where more threads would be slower than half as many by more than 1%; the last
column has the measured speed-up at two threads and how far the model is off there. Other work on
the machine spoils it.
"""

import math
import time

import command
import numpy as np
from workloads import WORKLOADS, flat

import fastcurv as fc

MAX_FULL_MEMORY_CORES = 8  # cores whose full demand a server's memory meets
MIN_ITEMS = 32  # least number of parts of a large product
WORKLOAD_NAMES = ("digits", "mnist-128", "mnist", "tall-100", "tall-64", "ragged", "deep-72")


def median_seconds(call, seconds=0.15):
    """Return the median time of a call."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2]


def operator(name, threads):
    """Return the Hessian of a workload for a number of threads, and a vector."""
    w = WORKLOADS[name]
    X, y, layers, directions = w.problem("float32")
    model = fc.MLP(w.sizes, w.activation, dtype="float32")
    H = fc.Objective(model, X, y, w.loss, n_threads=threads).hessian(flat(layers))
    return H, flat(directions)


def time_product(name, threads):
    """Return the seconds of a product of a workload on a number of threads, and its layout."""
    H, v = operator(name, threads)
    out = np.empty_like(v)
    return median_seconds(lambda: H.product(v, out=out)), H.layout


def jobs_and_parts(name, layout):
    """Return the number of jobs of a product, and the number of parts of each."""
    w = WORKLOADS[name]
    layers = len(w.sizes) - 1
    if layout["groups"]:
        panels = math.ceil(layout["chunk"] / layout["panel"])
        return 2, min(panels, layout["groups"])
    rows = math.ceil(w.n_samples / 64)
    return 3 * layers + 2, max(MIN_ITEMS, rows)


def modelled_seconds(work, runs, items, wake, share, threads):
    """Return the modelled seconds of a product on a number of threads."""
    if threads == 1:
        return work
    threads = min(threads, items)
    spread = max(math.ceil(items / threads) / items, share / min(threads, MAX_FULL_MEMORY_CORES))
    return runs * wake * threads / 2 + work * spread


def main():
    """Measure at 1 and 2 threads, and print the model's table."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8, 16, 32, 64],
        help="to model (default 1 2 4 8 16 32 64)",
    )
    parser.add_argument("--wake", type=float, default=1.5e-6, help="seconds of a job's start at 2")
    parser.add_argument(
        "--share",
        type=float,
        default=0.3,
        help="part of the time in which a thread waits for memory",
    )
    args = parser.parse_args()
    with command.run(args) as numbers:
        print_table(args, numbers)


def print_table(args, numbers):
    """Print a line for each workload."""
    print("speed-up over one thread; (measured at 2); * slower than with half as many")
    print(f"{'':11}" + "".join(f"{t:>8}" for t in args.threads) + "   at 2: measured, off by")
    worst = 0.0
    for name in WORKLOAD_NAMES:
        command.begin_step(name)
        (alone, layout), (two, _) = time_product(name, 1), time_product(name, 2)
        runs, items = jobs_and_parts(name, layout)
        given = [operator(name, t)[0].layout["threads"] for t in args.threads]
        found = [modelled_seconds(alone, runs, items, args.wake, args.share, t) for t in given]
        line = f"{name:11}"
        for i, seconds in enumerate(found):
            slower = i and seconds > 1.01 * found[i - 1]
            line += f"{alone / seconds:7.2f}{'*' if slower else ' '}"
        numbers[name] = {"modelled": dict(zip(args.threads, found)), "measured": [alone, two]}
        off = modelled_seconds(alone, runs, items, args.wake, args.share, 2) / two - 1
        worst = max(worst, abs(off))
        print(line + f"   {alone / two:.2f}, {100 * off:+.0f}%")
    print(f"the model at 2 threads is off by {100 * worst:.0f}% at most")


if __name__ == "__main__":
    main()
