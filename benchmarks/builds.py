"""Two builds of the engine side by side: the same rows in turns, each in a process of its own.

    python benchmarks/builds.py /path/to/other/checkout [--seconds 100] [--dtypes float32]
        [--workload digits wide] [--operations gradient]

Prints the ratio of the median times, other over this one, for each workload and operation, and the
geometric mean of all: above 1, this one is faster.
"""

import argparse
import math
import subprocess
import sys
import time
from pathlib import Path

OPERATIONS = ("product", "gradient", "ggn", "block8")
SKIPPED = ("wide", "autoencoder")  # hundreds of milliseconds a product


def serve(tree):
    """Time rows as they are asked for on stdin, with the package of one checkout."""
    sys.path.insert(0, tree)
    import numpy as np
    from workloads import WORKLOADS, flat

    import fastcurv as fc

    made = {}

    def ready(name, dtype):
        if (name, dtype) not in made:
            w = WORKLOADS[name]
            X, y, layers, directions = w.problem(dtype)
            ob = fc.Objective(fc.MLP(w.sizes, w.activation, dtype=dtype), X, y, w.loss)
            theta, v = flat(layers), flat(directions)
            H, G, out = ob.hessian(theta), ob.ggn(theta), np.empty_like(v)
            V = np.ascontiguousarray(np.tile(v, (8, 1))).T
            made[name, dtype] = {
                "product": lambda: H.product(v, out=out),
                "gradient": lambda: ob._bound(theta, False).bind(theta),
                "ggn": lambda: G.product(v, out=out),
                "block8": lambda: H @ V,
            }
        return made[name, dtype]

    for line in sys.stdin:
        name, dtype, operation, repeats = line.split()
        call = ready(name, dtype)[operation]
        begin = time.perf_counter()
        for _ in range(int(repeats)):
            call()
        print((time.perf_counter() - begin) / int(repeats), flush=True)


class Build:
    """A process that times rows with one checkout's engine."""

    def __init__(self, tree):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(tree)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def time(self, name, dtype, operation, repeats):
        print(name, dtype, operation, repeats, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def main():
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", nargs="?")
    parser.add_argument("--serve")
    parser.add_argument("--seconds", type=float, default=100)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--workload", nargs="+", help="all that take less than 100 ms a product")
    parser.add_argument("--operations", nargs="+", default=OPERATIONS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
        return
    from workloads import WORKLOADS

    here = Path(__file__).resolve().parents[1]
    rows = [
        (name, dtype, operation)
        for dtype in args.dtypes
        for name in args.workload or [name for name in WORKLOADS if name not in SKIPPED]
        for operation in args.operations
    ]
    builds, each = [Build(args.other), Build(here)], args.seconds / len(rows)
    logs = []
    for row in rows:
        once = max(build.time(*row, 2) for build in builds)
        repeats = max(1, int(0.004 / once))
        times, end = ([], []), time.perf_counter() + each
        while time.perf_counter() < end or len(times[0]) < 5:
            order = (0, 1) if len(times[0]) % 2 else (1, 0)
            for i in order:
                times[i].append(builds[i].time(*row, repeats))
        medians = [sorted(t)[len(t) // 2] for t in times]
        logs.append(math.log(medians[0] / medians[1]))
        print(
            f"{row[0]:12} {row[1]} {row[2]:9} {medians[0] * 1e6:10.1f} {medians[1] * 1e6:10.1f} us"
            f"  {math.exp(logs[-1]):.3f}",
            flush=True,
        )
    print(f"geometric mean {math.exp(sum(logs) / len(logs)):.4f}, least {math.exp(min(logs)):.3f}")


if __name__ == "__main__":
    main()
