"""The estimators compared with scikit-learn's own, in one run.

By default, the time of a fit to an objective no higher than that of
scikit-learn's lbfgs. "to it" is fastcurv's fit that ends at the first iteration whose loss_ is no
higher than that of lbfgs; "as it comes" is fastcurv's fit with the same alpha, with the ratio of
its loss_ to that of lbfgs. Each contender has a process of its own, both fit in turns, and the
quickest of `--repeat` fits counts.

With `--scores`, scores on rows held out: twelve data sets behind a StandardScaler
(with `--unit` a MinMaxScaler, so that features lie in [0, 1]), a quarter of the rows held out
(digits: five folds as they stand), the same splits for all; our default, our `alpha=1e-4`, our adam
and scikit-learn's two solvers, with the processor time of a fit.
"behind" is the mean paired difference of our default to the best of the others by its mean, with
two standard errors.

    python benchmarks/estimators.py [--only digits] [--seeds 2] [--json]
    python benchmarks/estimators.py --scores --seeds 20 [--unit] [--only friedman] [--json]
    OPENBLAS_NUM_THREADS=1 python benchmarks/estimators.py --scores --only digits

The last command runs scikit-learn on one thread of BLAS, because threads that spin count as
processor time.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import warnings

import numpy as np

import fastcurv as fc
from fastcurv.common.optional import optional_import

with optional_import("comparisons", "bench"):
    import sklearn.neural_network
    from sklearn import datasets
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, r2_score
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import MinMaxScaler, StandardScaler, scale

PROBLEMS = [
    ("digits", (100,), "relu", 1e-4),
    ("digits", (100,), "tanh", 1.0),
    ("digits", (64, 32), "tanh", 0.1),
    ("breast_cancer", (100,), "relu", 1e-4),
    ("breast_cancer", (100,), "tanh", 1.0),
    ("wine", (100,), "relu", 1.0),
    ("wine", (20, 20), "tanh", 0.1),
    ("diabetes", (100,), "relu", 1e-4),
    ("diabetes", (20,), "tanh", 100.0),
    ("moons", (50, 50), "tanh", 1e-2),
    ("classification", (100,), "relu", 1.0),
    ("friedman", (50,), "tanh", 0.1),
    ("digits x 8", (100, 100), "tanh", 1.0),
    ("counts", (100,), "relu", 1e-4),
    ("counts", (50, 50), "tanh", 1e-4),
    ("counts", (50, 50), "relu", 1e-4),
]
# Data, kind and hidden layers of the held-out scores.
HELD_OUT = {
    "friedman1": ((100,), lambda: datasets.make_friedman1(2000, noise=1.0, random_state=0)),
    "friedman2": ((100,), lambda: datasets.make_friedman2(3000, noise=30.0, random_state=0)),
    "friedman3": ((100,), lambda: datasets.make_friedman3(3000, noise=0.1, random_state=0)),
    "products": ((100,), lambda: noisy_products()),
    "housing": ((100,), lambda: housing_like()),
    "diabetes": ((100,), lambda: datasets.load_diabetes(return_X_y=True)),
    "digits": ((100,), lambda: datasets.load_digits(return_X_y=True)),
    "digits, two layers": ((100, 100), lambda: datasets.load_digits(return_X_y=True)),
    "imbalanced": (
        (100,),
        lambda: classification_data(3000, 20, 8, 5, weights=[0.7, 0.15, 0.08, 0.05, 0.02]),
    ),
    "2000 features": (
        (100,),
        lambda: classification_data(1600, 2000, 60, 2, n_redundant=200, class_sep=2.0),
    ),
    "20 000 rows": ((100,), lambda: classification_data(20_000, 54, 20, 7, flip_y=0.05)),
    "breast cancer": ((100,), lambda: datasets.load_breast_cancer(return_X_y=True)),
}
CONTENDERS = {
    "ours": ("ours", {}),
    "ours, alpha=1e-4": ("ours", {"alpha": 1e-4}),
    "ours, adam": ("ours", {"solver": "adam"}),
    "theirs, lbfgs": ("theirs", {"solver": "lbfgs"}),
    "theirs, adam": ("theirs", {"solver": "adam"}),
}
PAUSE_SECONDS = 0.2  # time in which the other process's BLAS threads may still spin
REGRESSION = {"diabetes": {}, "friedman": {}, "counts": {"loss": "poisson"}}
MAX_SILENT_SECONDS = 20.0  # time without a progress line


def load_problem(name):
    """Return features and targets; `x 8` repeats the rows with a little noise."""
    base, _, times = name.partition(" x ")
    made = {
        "moons": lambda: datasets.make_moons(500, noise=0.2, random_state=0),
        "friedman": lambda: datasets.make_friedman1(1000, noise=1.0, random_state=0),
        "classification": lambda: datasets.make_classification(
            10_000, 20, n_informative=10, n_classes=4, random_state=0
        ),
        "counts": poisson_counts,
    }
    X, y = made[base]() if base in made else getattr(datasets, f"load_{base}")(return_X_y=True)
    if times:
        rng = np.random.default_rng(0)
        X = np.concatenate([X + 0.3 * rng.standard_normal(X.shape) for _ in range(int(times))])
        y = np.tile(y, int(times))
    return X, y


def classification_data(rows, features, informative, n_classes, **more):
    return datasets.make_classification(
        rows, features, n_informative=informative, n_classes=n_classes, random_state=0, **more
    )


def poisson_counts():
    rng = np.random.default_rng(0)
    X, W, u = rng.standard_normal((10_000, 10)), rng.standard_normal((10, 5)), rng.normal(0, 0.6, 5)
    return X, rng.poisson(np.exp(np.tanh(X @ W / 10**0.5) @ u + 0.5)).astype(float)


def noisy_products():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((5000, 6))
    return X, X[:, 0] * X[:, 1] + X[:, 2] * X[:, 3] + 0.3 * rng.standard_normal(5000)


def housing_like():
    """Return features and targets of a smooth function of eight features with skewed scales, as in
    California housing.
    """
    rng, n = np.random.default_rng(0), 8000
    income, age, rooms = rng.gamma(3, 1.3, n), rng.uniform(1, 52, n), rng.lognormal(1.6, 0.3, n)
    beds, people, crowd = (rng.lognormal(*at, n) for at in ((0.05, 0.2), (7, 0.8), (1.05, 0.25)))
    north = rng.uniform(32, 42, n)
    east = -124 + 0.9 * (42 - north) + rng.normal(0, 1.2, n)
    towns = 1.2 * np.exp(-((north - 37.7) ** 2 + (east + 122) ** 2) / 2)
    towns += 1.5 * np.exp(-((north - 34) ** 2 + (east + 118) ** 2) / 1.5)
    y = 0.45 * income + towns + 0.01 * age - 0.24 * np.log(crowd) * income
    y += 0.1 * rooms / beds * np.sin(income) + 0.35 * rng.standard_normal(n)
    return np.stack([income, age, rooms, beds, people, crowd, north, east], axis=1), y


def train_and_held_out(name, seed, unit=False):
    """Return the hidden layers, whether targets are labels, and the features and targets of the
    rows to fit and of those held out, scaled by the former.
    """
    hidden, make = HELD_OUT[name]
    X, y = make()
    labels = y.dtype.kind == "i"
    if name.startswith("digits"):
        held = np.arange(len(X)) // (len(X) // 5 + 1) == seed % 5
        parts = X[~held], X[held], y[~held], y[held]
    else:
        parts = train_test_split(
            X, y, test_size=0.25, random_state=seed, stratify=y if labels else None
        )
    scaler = (MinMaxScaler if unit else StandardScaler)().fit(parts[0])
    return hidden, labels, scaler.transform(parts[0]), scaler.transform(parts[1]), *parts[2:]


def score_fit(whose, name, seed, more, unit=False):
    """Return accuracy and balanced accuracy, or R^2, on the rows held out, and the time of the
    fit.
    """
    hidden, labels, X, X_held, y, y_held = train_and_held_out(name, seed, unit)
    kinds = fc if whose == "ours" else sklearn.neural_network
    kind = kinds.MLPClassifier if labels else kinds.MLPRegressor
    net = kind(hidden_layer_sizes=hidden, random_state=seed, **more)
    wall, cpu = time.perf_counter(), time.process_time()
    net.fit(X, y)
    spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    found = net.predict(X_held)
    if labels:
        scores = [accuracy_score(y_held, found), balanced_accuracy_score(y_held, found)]
    else:
        scores = [r2_score(y_held, found)]
    return {"scores": scores, "steps": int(net.n_iter_), **spent}


def estimator(whose, name, hidden, activation, alpha, seed, **more):
    """Return an estimator of fastcurv or of scikit-learn for the data of this name."""
    kinds = fc if whose == "ours" else sklearn.neural_network
    kind = kinds.MLPRegressor if name in REGRESSION else kinds.MLPClassifier
    common = {"hidden_layer_sizes": hidden, "activation": activation, "alpha": alpha}
    return kind(**common, random_state=seed, **REGRESSION.get(name, {}), **more)


def serve(whose):
    """Answer requests, one JSON line each, until the input ends."""
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        problem, seed, more, scores = json.loads(line)
        if scores:
            print(json.dumps(score_fit(whose, problem, seed, more, scores == "unit")), flush=True)
            continue
        name, hidden, *rest = problem
        X, y = load_problem(name)
        net = estimator(whose, name, tuple(hidden), *rest, seed, **more)
        X = scale(X)
        start = time.perf_counter()
        net.fit(X, y)
        found = {"time": time.perf_counter() - start, "loss": net.loss_, "steps": net.n_iter_}
        found["curve"] = list(getattr(net, "loss_curve_", []))
        print(json.dumps(found), flush=True)


class Progress:
    """A line on standard error after a long time without output."""

    def __init__(self):
        self.last = time.monotonic()

    def __call__(self, words):
        if time.monotonic() - self.last > MAX_SILENT_SECONDS:
            print(f"... {words}", file=sys.stderr, flush=True)
            self.last = time.monotonic()


class Contender:
    """A process that fits the estimators of fastcurv or those of scikit-learn."""

    def __init__(self, whose):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", whose],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, problem, seed, scores=False, **more):
        time.sleep(PAUSE_SECONDS)
        self.process.stdin.write(json.dumps([problem, seed, more, scores]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def best_fits(theirs, ours, problem, seed, repeat):
    """Return the quickest of `repeat` fits each: theirs, ours to their loss, and ours by
    default.
    """
    lbfgs = theirs.ask(problem, seed, solver="lbfgs")
    curve = ours.ask(problem, seed, tol=0, max_iter=2000, verdict=False)["curve"]
    low = np.flatnonzero(np.array(curve) <= lbfgs["loss"])
    steps = max(1, int(low[0])) if low.size else 2000
    fits = [lambda: theirs.ask(problem, seed, solver="lbfgs")]
    fits += [
        lambda: ours.ask(problem, seed, tol=0, max_iter=steps),
        lambda: ours.ask(problem, seed),
    ]
    found = [[fit() for fit in fits] for _ in range(repeat)]
    return [min(column, key=lambda fit: fit["time"]) for column in zip(*found)]


def time_fits(theirs, ours, args):
    head, rows = (
        f"{'problem':<42}{'lbfgs s':>9}{'loss_':>10}{'to it s':>9}{'loss_':>10}{'ratio':>7}",
        [],
    )
    if not args.json:
        print(f"{head}{'steps':>11}   as it comes: ratio, loss_ over theirs")
    progress = Progress()
    for problem in PROBLEMS:
        if args.only and args.only not in problem[0]:
            continue
        for seed in range(args.seeds):
            progress(f"{problem[0]} {problem[1]}: start {seed + 1} of {args.seeds}")
            their, to_it, ours_by_defaults = best_fits(theirs, ours, problem, seed, args.repeat)
            name, hidden, activation, alpha = problem
            if args.json:
                kept = [{key: fit[key] for key in ("time", "loss", "steps")}
                        for fit in (their, to_it, ours_by_defaults)]  # fmt: skip
                rows.append({"problem": problem, "seed": seed, "lbfgs": kept[0]})
                rows[-1] |= {"to it": kept[1], "as it comes": kept[2]}
                continue
            what = f"{name} {hidden} {activation} alpha={alpha:g} seed={seed}"
            print(
                f"{what:<42}{their['time']:9.3f}{their['loss']:10.4g}{to_it['time']:9.3f}"
                f"{to_it['loss']:10.4g}{their['time'] / to_it['time']:7.1f}"
                f"{to_it['steps']:5d} /{their['steps']:4d}   "
                f"{their['time'] / ours_by_defaults['time']:5.1f}"
                f"{ours_by_defaults['loss'] / their['loss']:8.3f}"
                + ("" if to_it["loss"] <= their["loss"] else "  HIGHER"),
                flush=True,
            )
    if args.json:
        print(json.dumps(rows))


def score_solvers(theirs, ours, args):
    """Print held-out scores and processor time of each data set."""
    whose, table, progress = {"ours": ours, "theirs": theirs}, {}, Progress()
    scaling = "unit" if args.unit else True
    for name in HELD_OUT:
        if args.only and args.only not in name:
            continue
        found = {who: [] for who in CONTENDERS}
        for seed in range(args.seeds):
            for who, (side, more) in CONTENDERS.items():
                progress(f"{name}: split {seed + 1} of {args.seeds}, {who}")
                found[who].append(whose[side].ask(name, seed, scaling, **more))
        scores = {who: np.array([fit["scores"] for fit in fits]) for who, fits in found.items()}
        others = [who for who in CONTENDERS if who not in ("ours", "ours, adam")]
        behind = []
        for i, measure in enumerate(
            ("accuracy or R2", "balanced accuracy")[: len(scores["ours"][0])]
        ):
            best = max(others, key=lambda who: scores[who][:, i].mean())
            gap = scores["ours"][:, i] - scores[best][:, i]
            error = 2 * gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else None
            behind.append({"of": measure, "best": best, "mean": gap.mean(), "two_errors": error})
        table[name] = {"behind": behind} | {
            who: {
                "scores": scores[who].mean(axis=0).tolist(),
                **{unit: float(np.median([fit[unit] for fit in fits])) for unit in ("wall", "cpu")},
            }
            for who, fits in found.items()
        }
        if args.json:
            continue
        print(f"{name}, {args.seeds} splits")
        for who in CONTENDERS:
            row = table[name][who]
            words = "".join(f"{score:9.4f}" for score in row["scores"])
            print(f"  {who:<16}{words:<20}{row['cpu']:9.3f} s of processor{row['wall']:9.3f} s")
        for gap in behind:
            error = "" if gap["two_errors"] is None else f" +- {gap['two_errors']:.4f}"
            print(f"  {gap['mean']:+.4f}{error} in {gap['of']}, to {gap['best']}")
        sys.stdout.flush()
    if args.json:
        print(json.dumps(table))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--repeat", type=int, default=3, help="fits of which the quickest counts (default 3)")
    add("--seeds", type=int, default=1, help="starts of each problem, or splits of each data set")
    add("--only", help="data sets with this in their name; below are all of them")
    add("--scores", action="store_true", help="held-out scores and times of fits by defaults")
    add("--unit", action="store_true", help="with --scores: features scaled to [0, 1]")
    add("--json", action="store_true", help="one object at the end, for programs")
    times = "; ".join(dict.fromkeys(problem[0] for problem in PROBLEMS))
    parser.epilog = f"data sets: {times}\nwith --scores: {'; '.join(HELD_OUT)}"
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve)
    names = HELD_OUT if args.scores else [problem[0] for problem in PROBLEMS]
    if args.only and not any(args.only in name for name in names):
        parser.error(f"no data set has {args.only!r} in its name; {parser.epilog}")
    config = fc.show_versions("dict")
    if not args.json:
        print(f"{platform.machine()}, {os.cpu_count()} processors; ", end="")
        print(f"kernels {config['kernels']}, {config['threads']} threads; ", end="")
        print(f"scikit-learn {sklearn.__version__}")
    theirs, ours = Contender("theirs"), Contender("ours")
    return (score_solvers if args.scores else time_fits)(theirs, ours, args)


if __name__ == "__main__":
    main()
