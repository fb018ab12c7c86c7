"""What do rows left out and standard deviations cost, in processor time and in fits?

    OPENBLAS_NUM_THREADS=1 python benchmarks/left_out.py [--only diabetes] [--rounds 5]

Networks are fitted with one thread: 10-10-1 to the 442 rows of diabetes, 13-8-3 to the 178 of wine.
Printed are the times of one step for every row, of the minima without each row, of the standard
deviations of all rows and of one row; then how far one step goes, as the slope of its changes over
those of the minima, for all rows and for those whose minimum is in the basin of the fit.
"""

import time

import command
import numpy as np

import fastcurv as fc
from fastcurv.common.optional import optional_import

with optional_import("comparisons", "bench"):
    from sklearn import datasets
    from sklearn.preprocessing import scale

NETS = {
    "diabetes": (datasets.load_diabetes, [10, 10, 1], "mse", 3e-2),
    "wine": (datasets.load_wine, [13, 8, 3], "cross_entropy", 1e-3),
}


def least_ms(call, rounds):
    """Return the least processor time of several calls, in milliseconds."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        found.append(1e3 * (time.process_time() - start))
    return min(found)


def measure(name, rounds):
    """Return the times and slopes of one network."""
    load, sizes, loss, l2 = NETS[name]
    X, y = load(return_X_y=True)
    y = scale(y) if loss == "mse" else y
    ob = fc.Objective(fc.MLP(sizes), scale(X), y, loss, l2=l2, n_threads=1)
    start = ob.model.init(rng=0)

    def fit():
        return fc.minimize(ob, start, verdict=False, rng=0)

    theta = fit().x
    exact = fc.leave_one_out(ob, theta, exact=True)
    z, one = ob.outputs(theta)[0], fc.leave_one_out(ob, theta)
    true, step = exact.predictions - z, one.predictions - z
    post, row = fc.laplace(ob, theta), ob.X[:1]
    return {
        "fit, ms": least_ms(fit, rounds),
        "one step, ms": least_ms(lambda: fc.leave_one_out(ob, theta), 20 * rounds),
        "minima, ms": least_ms(lambda: fc.leave_one_out(ob, theta, exact=True), min(rounds, 3)),
        "std of all rows, ms": least_ms(lambda: post.std(ob.X), 20 * rounds),
        "std of one row, ms": least_ms(lambda: post.std(row), 100 * rounds),
        "in the same basin": float(exact.in_same_basin.mean()),
        "slope": float(np.polyfit(true.ravel(), step.ravel(), 1)[0]),
        "slope, same basin": float(
            np.polyfit(true[exact.in_same_basin].ravel(), step[exact.in_same_basin].ravel(), 1)[0]
        ),
    }


def main():
    parser = command.parser(__doc__)
    command.add_names_option(parser, "--only", NETS)
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds, the least counts (default 5)"
    )
    args = parser.parse_args()
    with command.run(args) as numbers:
        for name in args.only:
            command.begin_step(name)
            numbers[name] = measure(name, args.rounds)
            print(name)
            for what, value in numbers[name].items():
                print(f"  {what:<24}{value:10.3f}", flush=True)


if __name__ == "__main__":
    main()
