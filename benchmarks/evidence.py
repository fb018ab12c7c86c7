"""The score and the time of ``alpha="evidence"``, compared with an alpha chosen by five folds.

    OPENBLAS_NUM_THREADS=1 FASTCURV_NUM_THREADS=1 python benchmarks/evidence.py [--folds 3]

Ten regressions of 100 to 442 samples are fitted with 8 tanh units on two of three outer folds. The
score is R2 of the third fold. Five-fold cross-validation chooses among seven values of alpha from
0.01 to 30. Times are processor times of the fits, the choice of alpha included.
"""

import time
import warnings

import command
import numpy as np

import fastcurv as fc
from fastcurv.common.optional import optional_import

with optional_import("comparisons", "bench"):
    from sklearn import datasets
    from sklearn.model_selection import GridSearchCV, KFold
    from sklearn.preprocessing import StandardScaler

ALPHAS = np.geomspace(0.01, 30.0, 7).tolist()


def random_data(rows, columns, law, noise):
    """Return normal features and a function of them with normal noise."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, columns))
    return X, law(X) + noise * rng.standard_normal(rows)


SETS = {
    "diabetes": lambda: datasets.load_diabetes(return_X_y=True),
    "friedman1": lambda: datasets.make_friedman1(300, noise=1.0, random_state=0),
    "friedman1, few": lambda: datasets.make_friedman1(100, noise=1.0, random_state=0),
    "friedman2": lambda: datasets.make_friedman2(200, noise=30.0, random_state=0),
    "friedman3": lambda: datasets.make_friedman3(300, noise=0.1, random_state=0),
    "linear": lambda: datasets.make_regression(150, 10, noise=30.0, random_state=0),
    "sine": lambda: random_data(100, 1, lambda X: np.sin(2 * X[:, 0]), 0.2),
    "products": lambda: random_data(400, 4, lambda X: X[:, 0] * X[:, 1] + X[:, 2] * X[:, 3], 0.3),
    "ridge": lambda: random_data(200, 5, lambda X: np.cos(X @ [1.0, 0.5, 0.0, 0.0, 0.0]), 0.3),
    "norm": lambda: random_data(150, 4, lambda X: np.sqrt(1 + (X**2).sum(axis=1)), 0.3),
}


def score_fit(net, parts):
    """Return R2 of the rows held out and the processor time of the fit."""
    X, X_held, y, y_held = parts
    start = time.process_time()
    net.fit(X, y)
    seconds = time.process_time() - start
    return net.score(X_held, y_held), seconds


def compare_rules(name, folds):
    """Return scores and times of both rules, (2, folds, 2)."""
    X, y = SETS[name]()
    found = []
    for seed, (fitted, held) in enumerate(KFold(folds, shuffle=True, random_state=0).split(X)):
        scale = StandardScaler().fit(X[fitted]).transform
        parts = scale(X[fitted]), scale(X[held]), y[fitted], y[held]
        net = fc.MLPRegressor((8,), "tanh", random_state=seed)
        inner = KFold(5, shuffle=True, random_state=seed)
        search = GridSearchCV(net, {"alpha": ALPHAS}, cv=inner)
        found.append([score_fit(net.set_params(alpha="evidence"), parts), score_fit(search, parts)])
    return np.swapaxes(found, 0, 1)


def main():
    parser = command.parser(__doc__)
    command.add_names_option(parser, "--only", SETS)
    parser.add_argument("--folds", type=int, default=3, help="outer folds (default 3)")
    args = parser.parse_args()
    with command.run(args) as numbers:
        warnings.simplefilter("ignore")
        rows = {}
        print(f"{'data':<16}{'evidence':>10}{'5-fold':>10}{'difference':>12}{'time ratio':>12}")
        for name in args.only:
            command.begin_step(name)
            own, chosen = compare_rules(name, args.folds)
            scores = own[:, 0].mean(), chosen[:, 0].mean()
            seconds = own[:, 1].sum(), chosen[:, 1].sum()
            rows[name] = {"evidence": scores[0], "folds": scores[1], "seconds": seconds}
            difference, ratio = scores[0] - scores[1], seconds[0] / seconds[1]
            print(f"{name:<16}{scores[0]:10.4f}{scores[1]:10.4f}{difference:12.4f}{ratio:12.3f}")
        differences = np.array([row["evidence"] - row["folds"] for row in rows.values()])
        seconds = np.sum([row["seconds"] for row in rows.values()], axis=0)
        numbers["sets"], numbers["ratio"] = rows, seconds[0] / seconds[1]
        print(
            f"mean difference {differences.mean():.4f}, worst {differences.min():.4f}, "
            f"{seconds[0]:.1f} s of {seconds[1]:.1f} s, a ratio of {numbers['ratio']:.3f}"
        )


if __name__ == "__main__":
    main()
