"""What do the exact diagonal and trace of a Hessian cost, and how accurate are estimates?

    python benchmarks/diagonals.py
    python benchmarks/diagonals.py --sizes 64 32 16 10 --rows 1797 --rounds 9

Networks with cross entropy at initial weights, on one thread, in processor time: a product, the
exact diagonal, and its ratio to the product, the best of the rounds. Then the relative errors, in
the 2-norm, of the diagonal by Hutchinson's method in the same time (as many products, rounded up)
and of the trace by Hutchinson's method in the same time (two quadratic forms in place of each
product). Errors are root mean squares over the seeds.
"""

import time

import command
import numpy as np

import fastcurv as fc

NETWORKS = (((64, 32, 16, 10), 1797), ((784, 128, 10), 1024), ((784, 512, 512, 10), 1024))
MAX_PRODUCT_RATIO = 3.6  # goal: time of the exact diagonal in products


def main(argv=None):
    args = parse_arguments(argv)
    networks = [(tuple(args.sizes), args.rows)] if args.sizes else NETWORKS
    with command.run(args) as numbers:
        numbers["rows"] = rows = []
        print(
            f"{'network':30s}{'product, ms':>12s}{'exact, ms':>11s}{'products':>10s}"
            f"{'Hutchinson':>12s}{'trace':>9s}"
        )
        for sizes, n_rows in networks:
            for activation in ("relu", "tanh"):
                for dtype in ("float32", "float64"):
                    name = f"{'-'.join(map(str, sizes))} {activation} {dtype[5:]}"
                    command.begin_step(name)
                    rows.append(
                        {"network": name, **measure(sizes, n_rows, activation, dtype, args)}
                    )
                    print(format_row(rows[-1]), flush=True)
        ratios = [row["exact_ms"] / row["product_ms"] for row in rows]
        if args.bounds:
            word = "met" if max(ratios) <= MAX_PRODUCT_RATIO else "MISSED"
            print(f"{word}: at most {MAX_PRODUCT_RATIO} products, {max(ratios):.2f} in this run")


def parse_arguments(argv):
    parser = command.parser(__doc__, bounds=True)
    parser.add_argument("--sizes", nargs="+", type=int, help="layer sizes of a single network")
    parser.add_argument("--rows", type=int, default=1024, help="its samples (default 1024)")
    parser.add_argument("--rounds", type=int, default=9, help="of all timings (default 9)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of estimates (default 5)")
    return parser.parse_args(argv)


def measure(sizes, n_rows, activation, dtype, args):
    """Return the times in milliseconds and the errors of one network."""
    rng = np.random.default_rng(0)
    model = fc.MLP(sizes, activation, dtype=dtype)
    X, y = rng.standard_normal((n_rows, sizes[0])), rng.integers(sizes[-1], size=n_rows)
    ob = fc.Objective(model, X.astype(dtype), y, n_threads=1)
    H = ob.hessian(model.init(rng=0))
    v = rng.standard_normal(H.shape[0]).astype(dtype)
    out = np.empty_like(v)
    repeats = max(1, 10**9 // (12 * n_rows * len(v)))
    jobs = lambda: H.product(v, out), lambda: fc.diagonal(H, method="exact")  # noqa: E731
    product, exact = (
        float(t) for t in np.min([times(jobs, repeats) for _ in range(args.rounds)], 0)
    )
    truth, m = fc.diagonal(H, method="exact").estimate, int(np.ceil(exact / product))
    same_time = [fc.diagonal(H, m, "hutchinson", rng=i) for i in range(args.seeds)]
    traces = [fc.trace(H, 2 * m, "hutchinson", rng=i) for i in range(args.seeds)]
    return {
        "product_ms": 1e3 * product,
        "exact_ms": 1e3 * exact,
        "hutchinson": relative_error(same_time, truth),
        "trace": relative_error(traces, truth.sum()),
    }


def times(jobs, repeats):
    """Return the processor seconds of each job, the mean of `repeats` calls."""
    seconds = []
    for job in jobs:
        started = time.thread_time()
        for _ in range(repeats):
            job()
        seconds.append((time.thread_time() - started) / repeats)
    return seconds


def relative_error(estimates, truth):
    """Return the root mean square of the errors of some estimates, relative to the truth."""
    errors = [np.linalg.norm(each.estimate - truth) for each in estimates]
    return float(np.sqrt(np.mean(np.square(errors))) / np.linalg.norm(truth))


def format_row(row):
    ratio = row["exact_ms"] / row["product_ms"]
    return (
        f"{row['network']:30s}{row['product_ms']:12.3f}{row['exact_ms']:11.3f}{ratio:10.2f}"
        f"{row['hutchinson']:12.2f}{row['trace']:9.2f}"
    )


if __name__ == "__main__":
    main()
