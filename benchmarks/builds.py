"""Two builds of the engine side by side: the same rows in turns, each in a process of its own.

    python benchmarks/builds.py /path/to/other/checkout [--seconds 100] [--dtypes float32]
        [--workload digits wide] [--operations gradient]

"This one" is the package that is installed here, the other that of a checkout whose engine is built
in place. The output is the ratio of the median times, other over this one, for each workload and
operation, and the geometric mean of all: above 1, this one is faster.
"""

import math
import subprocess
import sys
import time

import command
from workloads import DTYPES, WORKLOADS

OPERATIONS = ("product", "gradient", "ggn", "block8", "quadratic")
SLOW_WORKLOADS = ("wide", "autoencoder")  # hundreds of milliseconds a product


def serve_times(tree):
    """Time the rows that are read from stdin, with the package of a checkout or, if ``tree`` is
    empty, with the installed one.
    """
    if tree:
        sys.path.insert(0, tree)
    import numpy as np
    from workloads import flat

    import fastcurv as fc

    made = {}

    def calls_of(name, dtype):
        if (name, dtype) not in made:
            w = WORKLOADS[name]
            X, y, layers, directions = w.problem(dtype)
            ob = fc.Objective(fc.MLP(w.sizes, w.activation, dtype=dtype), X, y, w.loss)
            theta, v = flat(layers), flat(directions)
            H, G, out = ob.hessian(theta), ob.ggn(theta), np.empty_like(v)
            V = np.ascontiguousarray(np.tile(v, (8, 1))).T
            made[name, dtype] = {
                "product": lambda: H.product(v, out=out),
                "gradient": lambda: ob._bind_plan(theta, False).bind(theta),
                "ggn": lambda: G.product(v, out=out),
                "block8": lambda: H @ V,
                "quadratic": lambda: H.quadratic_form(v),
            }
        return made[name, dtype]

    for line in sys.stdin:
        name, dtype, operation, repeats = line.split()
        call = calls_of(name, dtype)[operation]
        begin = time.perf_counter()
        for _ in range(int(repeats)):
            call()
        print((time.perf_counter() - begin) / int(repeats), flush=True)


class Build:
    """A process that times rows with one build."""

    def __init__(self, tree):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", tree],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def time(self, name, dtype, operation, repeats):
        print(name, dtype, operation, repeats, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def main():
    """Compare two builds."""
    parser = command.parser(__doc__)
    parser.add_argument("other", help="a checkout whose engine is built in place")
    parser.add_argument("--seconds", type=float, default=100, help="in all (default 100)")
    command.add_names_option(parser, "--dtypes", DTYPES)
    quick = [name for name in WORKLOADS if name not in SLOW_WORKLOADS]
    command.add_names_option(parser, "--workload", WORKLOADS, quick)
    command.add_names_option(parser, "--operations", OPERATIONS)
    args = parser.parse_args()
    with command.run(args) as numbers:
        compare_builds(args, numbers)


def compare_builds(args, numbers):
    """Time all rows with both builds, and print their ratios."""
    rows = [
        (name, dtype, operation)
        for dtype in args.dtypes
        for name in args.workload
        for operation in args.operations
    ]
    builds, each = [Build(args.other), Build("")], args.seconds / len(rows)
    logs, numbers["rows"] = [], []
    for row in rows:
        command.begin_step(", ".join(row))
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
        numbers["rows"].append([*row, *medians])
    numbers["geometric_mean"] = math.exp(sum(logs) / len(logs))
    print(f"geometric mean {math.exp(sum(logs) / len(logs)):.4f}, least {math.exp(min(logs)):.3f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve_times(sys.argv[2])
    else:
        main()
