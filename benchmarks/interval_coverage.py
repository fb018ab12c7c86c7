"""How often do jackknife+ intervals cover new targets?

    python benchmarks/interval_coverage.py [--only fits] [--splits 40]

`fits`: intervals of 90% by `MLPRegressor.predict_interval`, for 30 to 240 rows of friedman1 and
friedman3, five units, `alpha` from 1e-4 to 1, tanh and relu. Printed are the coverage of 200 new
targets and the mean width in standard deviations of the targets, in the mean and at worst, for fits
with at most and with more than half as many effective parameters as targets. `splits`: the coverage
over random splits of three data sets with `alpha` 5 and 3, and its standard error.
"""

import warnings

import command
import numpy as np

import fastcurv as fc
from fastcurv.common.optional import optional_import

with optional_import("comparisons", "bench"):
    from sklearn import datasets
    from sklearn.preprocessing import scale

PARTS = ("fits", "splits")
N_NEW = 200
# data set of the table of splits: number of training rows
SPLITS = {"diabetes": 300, "friedman1": 200, "friedman3": 200}


def drawn_rows(name, seed, n):
    """Return n rows of a data set and their targets."""
    if name == "diabetes":
        X, y = datasets.load_diabetes(return_X_y=True)
        order = np.random.default_rng(seed).permutation(len(y))[:n]
        return scale(X)[order], y[order]
    if name == "friedman1":
        return datasets.make_friedman1(n, noise=1.0, random_state=seed)
    X, y = datasets.make_friedman3(n, noise=0.1, random_state=seed)
    return scale(X), y


def coverage(X, y, n_train, activation, alpha, seed):
    """Return the coverage of the rows after the first `n_train`, the mean width of their intervals
    in standard deviations of y, and True if the fit has more than half as many effective
    parameters as targets, about which `predict_interval` warns.
    """
    est = fc.MLPRegressor((5,), activation, alpha=alpha, random_state=seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        est.fit(X[:n_train], y[:n_train])
        low, high = est.predict_interval(X[n_train:])
    new = y[n_train:]
    width = np.mean(high - low) / np.std(y)
    is_flexible = any("effective parameters" in str(x.message) for x in caught)
    return np.mean((low <= new) & (new <= high)), width, is_flexible


def measure_fits(seeds):
    """Return the coverage and widths by activation and number of effective parameters."""
    found = {}
    for activation in ("tanh", "relu"):
        rows = []
        for name in ("friedman1", "friedman3"):
            for n_train in (30, 60, 120, 240):
                for alpha in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
                    for seed in range(seeds):
                        X, y = drawn_rows(name, seed, n_train + N_NEW)
                        rows.append(coverage(X, y, n_train, activation, alpha, seed))
        rows = np.array(rows)
        flexible = rows[:, 2] == 1
        for label, chosen in (("at most half", ~flexible), ("more than half", flexible)):
            part = rows[chosen]
            found[f"{activation}, {label}"] = {
                "fits": len(part),
                "coverage": part[:, 0].mean(),
                "least": part[:, 0].min(),
                "width": np.median(part[:, 1]),
                "most": part[:, 1].max(),
            }
    return found


def measure_splits(n_splits):
    """Return the coverage of three data sets for two penalties, with standard errors."""
    found = {}
    for alpha in (5.0, 3.0):
        for name, n_train in SPLITS.items():
            shares = []
            for seed in range(n_splits):
                X, y = drawn_rows(name, seed, 442 if name == "diabetes" else 400)
                shares.append(coverage(X, y, n_train, "tanh", alpha, seed)[0])
            found[f"{name}, alpha={alpha:g}"] = {
                "coverage": np.mean(shares),
                "standard error": np.std(shares, ddof=1) / n_splits**0.5,
            }
    return found


def main():
    parser = command.parser(__doc__)
    command.add_names_option(parser, "--only", PARTS)
    parser.add_argument("--seeds", type=int, default=3, help="data sets of each kind (default 3)")
    parser.add_argument("--splits", type=int, default=40, help="splits of a data set (default 40)")
    args = parser.parse_args()
    with command.run(args) as numbers:
        for kind in args.only:
            command.begin_step(kind)
            found = measure_fits(args.seeds) if kind == "fits" else measure_splits(args.splits)
            numbers[kind] = found
            for name, values in found.items():
                line = "  ".join(f"{what} {value:.3g}" for what, value in values.items())
                print(f"{name:<24}{line}", flush=True)


if __name__ == "__main__":
    main()
