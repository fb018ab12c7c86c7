"""What the team of threads can do with more cores than are here: a model, checked at 1 and 2.

    python benchmarks/team_model.py [--threads 1 2 4 8 16 32 64]

A product on T threads takes

    runs * wake * t / 2  +  work * max(ceil(items / t) / items, share / min(t, CHANNELS))

with t the members that the engine gives the job (no more than it has parts, nor than pay), `runs`
the jobs that the team is given (served wide: one for each product and sweep; tall: one
or two), `items` the parts that a job is cut into whatever the number of threads, `work` the time of
one thread, measured; `share` the part of it in which a thread would wait for memory that all cores
share, and `wake` the seconds that a job takes to start at two threads. Each further thread is
charged as much again: the caller sets each member's share, and waits for the last one to leave.
`wake` and `share` are assumed, not measured: the last column says what that is worth.

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

CHANNELS = 8  # cores whose full demand the memory of a server meets
ITEMS = 32  # a product is cut into so many or more where it is large, panels into so many groups
NAMES = ("digits", "mnist-128", "mnist", "tall-100", "tall-64", "ragged", "deep-72")


def timed(call, seconds=0.15):
    """The median time of a call."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2]


def operator(name, threads):
    """The Hessian of a workload on some threads, and a vector."""
    w = WORKLOADS[name]
    X, y, layers, directions = w.problem("float32")
    model = fc.MLP(w.sizes, w.activation, dtype="float32")
    H = fc.Objective(model, X, y, w.loss, n_threads=threads).hessian(flat(layers))
    return H, flat(directions)


def one(name, threads):
    """A product of a workload on some threads: (seconds, layout)."""
    H, v = operator(name, threads)
    out = np.empty_like(v)
    return timed(lambda: H.product(v, out=out)), H.layout


def jobs(name, layout):
    """How many jobs the team is given for a product, and how many parts each is cut into."""
    w = WORKLOADS[name]
    layers = len(w.sizes) - 1
    if layout["groups"]:
        panels = math.ceil(layout["chunk"] / layout["panel"])
        return 2, min(panels, layout["groups"])
    rows = math.ceil(w.n_samples / 64)
    return 3 * layers + 2, max(ITEMS, rows)


def model(work, runs, items, wake, share, threads):
    """Seconds of a product on so many threads."""
    if threads == 1:
        return work
    threads = min(threads, items)
    spread = max(math.ceil(items / threads) / items, share / min(threads, CHANNELS))
    return runs * wake * threads / 2 + work * spread


def main():
    """Measure at 1 and 2 threads, print the model's table."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8, 16, 32, 64],
        help="to model (default 1 2 4 8 16 32 64)",
    )
    parser.add_argument("--wake", type=float, default=1.5e-6, help="seconds of a job's start at 2")
    parser.add_argument("--share", type=float, default=0.3, help="of the time: waits for memory")
    args = parser.parse_args()
    with command.run(args) as numbers:
        table(args, numbers)


def table(args, numbers):
    """A line for each workload."""
    print("speed-up over one thread; (measured at 2); * slower than with half as many")
    print(f"{'':11}" + "".join(f"{t:>8}" for t in args.threads) + "   at 2: measured, off by")
    worst = 0.0
    for name in NAMES:
        command.step(name)
        (alone, layout), (two, _) = one(name, 1), one(name, 2)
        runs, items = jobs(name, layout)
        given = [operator(name, t)[0].layout["threads"] for t in args.threads]
        found = [model(alone, runs, items, args.wake, args.share, t) for t in given]
        line = f"{name:11}"
        for i, seconds in enumerate(found):
            slower = i and seconds > 1.01 * found[i - 1]
            line += f"{alone / seconds:7.2f}{'*' if slower else ' '}"
        numbers[name] = {"modelled": dict(zip(args.threads, found)), "measured": [alone, two]}
        off = model(alone, runs, items, args.wake, args.share, 2) / two - 1
        worst = max(worst, abs(off))
        print(line + f"   {alone / two:.2f}, {100 * off:+.0f}%")
    print(f"the model at 2 threads is off by {100 * worst:.0f}% at most")


if __name__ == "__main__":
    main()
