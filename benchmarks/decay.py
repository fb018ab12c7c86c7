"""Which alpha suits the estimators: held-out scores and processor times of the default, of
``alpha="evidence"`` and of fixed values, compared with scikit-learn's two solvers.

    OPENBLAS_NUM_THREADS=1 FASTCURV_NUM_THREADS=1 python benchmarks/decay.py [--part default]

``--part table``: five data sets of `benchmarks/estimators.py --scores`, split and scaled as there.
``--part default``: the default against the better of scikit-learn's adam and lbfgs on these twelve
data sets and eight more, by folds. ``--part regressions``: the default, which holds rows out,
against ``alpha="evidence"`` on the six regressions of the twelve, by folds. Evidence is left out
above 4096 parameters, for which it raises ValueError.
"""

import time
import warnings

import command
import numpy as np
from estimators import HELD_OUT, classification_data, sklearn, train_and_held_out
from evidence import SETS

import fastcurv as fc
from fastcurv.common.optional import optional_import

with optional_import("comparisons", "bench"):
    from sklearn import datasets
    from sklearn.model_selection import KFold, StratifiedKFold
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

TABLE_DATA_SETS = ("diabetes", "breast cancer", "friedman1", "friedman3", "digits")
CONTENDERS = {
    "ours, default": (fc, {}),
    "ours, evidence": (fc, {"alpha": "evidence"}),
    "ours, tanh, evidence": (fc, {"alpha": "evidence", "activation": "tanh"}),
    "ours, alpha=0.3": (fc, {"alpha": 0.3}),
    "ours, alpha=1": (fc, {"alpha": 1.0}),
    "theirs, adam": (sklearn.neural_network, {"solver": "adam"}),
    "theirs, lbfgs": (sklearn.neural_network, {"solver": "lbfgs"}),
}
PARTS = {
    "table": tuple(CONTENDERS),
    "default": ("ours, default", "theirs, adam", "theirs, lbfgs"),
    "regressions": ("ours, default", "ours, evidence", "ours, tanh, evidence"),
}
REGRESSIONS = ("friedman1", "friedman2", "friedman3", "products", "housing", "diabetes")
# Data sets that are compared by folds, with their hidden layers.
BY_FOLDS = HELD_OUT | {
    "wine": ((100,), lambda: datasets.load_wine(return_X_y=True)),
    "iris": ((100,), lambda: datasets.load_iris(return_X_y=True)),
    "moons": ((100,), lambda: datasets.make_moons(500, noise=0.3, random_state=0)),
    "noisy labels": ((100,), lambda: classification_data(400, 10, 5, 2, flip_y=0.2)),
    "friedman1, few": ((100,), SETS["friedman1, few"]),
    "linear": ((100,), SETS["linear"]),
    "sine": ((100,), SETS["sine"]),
    "ridge": ((100,), SETS["ridge"]),
}
MAX_SCORE_DEFICIT = (
    0.01  # score by which the default may be below the better solver, plus two errors
)
MIN_MEAN_GAIN = 0.005  # score by which the default must be above it on average


def folds(name, n_folds, unit):
    """Yield the hidden layers, whether targets are labels, and the parts of each fold."""
    hidden, make = BY_FOLDS[name]
    X, y = make()
    labels = y.dtype.kind == "i"
    if name.startswith("digits"):  # neighbouring rows are by the same writer
        cuts = KFold(n_folds).split(X)
    else:
        kind = StratifiedKFold if labels else KFold
        cuts = kind(n_folds, shuffle=True, random_state=0).split(X, y)
    for fitted, held in cuts:
        scaler = (MinMaxScaler if unit else StandardScaler)().fit(X[fitted])
        yield (
            hidden,
            labels,
            scaler.transform(X[fitted]),
            scaler.transform(X[held]),
            *(
                y[fitted],
                y[held],
            ),
        )


def score_fit(who, parts, seed, hidden=None):
    """Return the accuracy or R^2 on the rows held out, and the processor time of the fit."""
    (kinds, more), (sizes, labels, X, X_held, y, y_held) = CONTENDERS[who], parts
    kind = kinds.MLPClassifier if labels else kinds.MLPRegressor
    net = kind(hidden_layer_sizes=(hidden,) if hidden else sizes, random_state=seed, **more)
    start = time.process_time()
    try:
        net.fit(X, y)
    except ValueError:  # too many parameters for the evidence
        return np.nan, np.nan
    return net.score(X_held, y_held), time.process_time() - start


def report_gap(own, others):
    """Print how far the first contender is from the best of the others, and return the mean
    difference of their scores, two standard errors and the times.
    """
    best = max(others, key=lambda who: others[who][:, 0].mean())
    gap = own[:, 0] - others[best][:, 0]
    error = 2 * gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.nan
    print(f"  {gap.mean():+.4f} +- {error:.4f} to {best}", flush=True)
    return gap.mean(), error


def summarise(part, gaps, seconds, bounds):
    """Print the differences over all data sets and, on demand, whether the bounds are met."""
    means, errors = np.array(list(gaps.values())).T
    first, second = PARTS[part][:2]
    ratio = seconds[first] / seconds[second]
    print(
        f"{len(means)} data sets: {means.mean():+.4f} on average, {means.min():+.4f} at worst, "
        f"{ratio:.2f} of the processor time of {second!r}"
    )
    if bounds and part == "default":
        below = [name for name, (mean, error) in gaps.items() if mean < -MAX_SCORE_DEFICIT - error]
        command.print_bound(
            not below, f"none by more than {MAX_SCORE_DEFICIT} and two errors below: {below}"
        )
        command.print_bound(means.mean() >= MIN_MEAN_GAIN, f"on average {MIN_MEAN_GAIN} above")
        command.print_bound(ratio <= 1, "no more processor time than adam")


def main():
    parser = command.parser(__doc__, bounds=True)
    parser.add_argument("--part", choices=PARTS, default="table", help="what to compare")
    parser.add_argument("--seeds", type=int, default=2, help="splits of the table (default 2)")
    parser.add_argument("--folds", type=int, default=5, help="folds of other parts (default 5)")
    parser.add_argument("--unit", action="store_true", help="features scaled to [0, 1]")
    command.add_names_option(parser, "--only", BY_FOLDS, ())
    parser.add_argument("--hidden", type=int, help="units instead of those of the data set")
    args = parser.parse_args()
    usual = {"table": TABLE_DATA_SETS, "default": BY_FOLDS, "regressions": REGRESSIONS}[args.part]
    with command.run(args) as numbers:
        warnings.simplefilter("ignore")
        gaps, seconds = {}, dict.fromkeys(PARTS[args.part], 0.0)
        for name in args.only or usual:
            print(name, flush=True)
            command.begin_step(name)
            if args.part == "table":
                parts = [train_and_held_out(name, seed, args.unit) for seed in range(args.seeds)]
            else:
                parts = list(folds(name, args.folds, args.unit))
            found = {}
            for who in PARTS[args.part]:
                runs = [score_fit(who, part, i, args.hidden) for i, part in enumerate(parts)]
                found[who] = np.array(runs)
                mean, spent = found[who].mean(axis=0)
                seconds[who] += found[who][:, 1].sum()
                print(f"  {who:<22}{mean:8.4f}{spent:9.2f} s", flush=True)
            numbers[name] = found
            if args.part != "table":
                own = found.pop(PARTS[args.part][0])
                gaps[name] = report_gap(own, found)
                found[PARTS[args.part][0]] = own
        if gaps:
            summarise(args.part, gaps, seconds, args.bounds)


if __name__ == "__main__":
    main()
