"""The estimators beside scikit-learn's own, in one run: the time of a fit, what curvature_ says
included, to an objective no higher than where scikit-learn's lbfgs ends; and 5-fold scores.

Each contender is a process of its own, both are asked in turn, and the quickest of `--repeat` fits
counts. scikit-learn's lbfgs is fitted as it comes. "to it" is our fit that ends at the first
iteration whose loss_ is no higher than its; "as it comes" is our fit by defaults, with the loss_
over its: above 1 where the penalty holds nothing and the fit ends within the scatter. Both have
the same random_state, and starts of their own.

    python benchmarks/estimators.py [--only digits] [--seeds 2] [--scores]
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
from sklearn import datasets
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

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
]
PAUSE = 0.2  # the other's BLAS threads spin on after its last product
REGRESSION = ("diabetes", "friedman")


def data(name):
    """Features and targets; `x 8` repeats the rows with a little noise."""
    base, _, times = name.partition(" x ")
    made = {
        "moons": lambda: datasets.make_moons(500, noise=0.2, random_state=0),
        "friedman": lambda: datasets.make_friedman1(1000, noise=1.0, random_state=0),
        "classification": lambda: datasets.make_classification(
            10_000, 20, n_informative=10, n_classes=4, random_state=0
        ),
    }
    X, y = made[base]() if base in made else getattr(datasets, f"load_{base}")(return_X_y=True)
    if times:
        rng = np.random.default_rng(0)
        X = np.concatenate([X + 0.3 * rng.standard_normal(X.shape) for _ in range(int(times))])
        y = np.tile(y, int(times))
    return X, y


def estimator(whose, name, hidden, activation, alpha, seed, **more):
    """Ours or scikit-learn's, for the data of this name."""
    if whose == "ours":
        import fastcurv as kinds
    else:
        import sklearn.neural_network as kinds
    kind = kinds.MLPRegressor if name in REGRESSION else kinds.MLPClassifier
    common = {"hidden_layer_sizes": hidden, "activation": activation, "alpha": alpha}
    return kind(**common, random_state=seed, **more)


def serve(whose):
    """Answer requests, one JSON line each, until the input ends."""
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        problem, seed, more, scores = json.loads(line)
        name, hidden, *rest = problem
        X, y = data(name)
        net = estimator(whose, name, tuple(hidden), *rest, seed, **more)
        if scores:
            pipeline = make_pipeline(StandardScaler(), net)
            found = {"scores": cross_val_score(pipeline, X, y, cv=5).tolist()}
        else:
            X = scale(X)
            start = time.perf_counter()
            net.fit(X, y)
            found = {"time": time.perf_counter() - start, "loss": net.loss_, "steps": net.n_iter_}
            found["curve"] = list(getattr(net, "loss_curve_", []))
            found["kind"] = getattr(getattr(net, "curvature_", None), "kind", None)
        print(json.dumps(found), flush=True)


class Contender:
    """A process that fits the one or the other."""

    def __init__(self, whose):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", whose],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, problem, seed, scores=False, **more):
        time.sleep(PAUSE)
        self.process.stdin.write(json.dumps([problem, seed, more, scores]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def compare(theirs, ours, problem, seed, repeat):
    """Their fit, our fit to it, our fit as it comes: each the quickest of `repeat`."""
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


def timed(theirs, ours, args):
    head = f"{'problem':<42}{'lbfgs s':>9}{'loss_':>10}{'to it s':>9}{'loss_':>10}{'ratio':>7}"
    print(f"{head}{'steps':>11}   as it comes: ratio, loss_ over theirs, curvature_")
    for problem in PROBLEMS:
        if args.only and args.only not in problem[0]:
            continue
        for seed in range(args.seeds):
            their, to_it, ours_by_defaults = compare(theirs, ours, problem, seed, args.repeat)
            name, hidden, activation, alpha = problem
            what = f"{name} {hidden} {activation} alpha={alpha:g} seed={seed}"
            print(
                f"{what:<42}{their['time']:9.3f}{their['loss']:10.4g}{to_it['time']:9.3f}"
                f"{to_it['loss']:10.4g}{their['time'] / to_it['time']:7.1f}"
                f"{to_it['steps']:5d} /{their['steps']:4d}   "
                f"{their['time'] / ours_by_defaults['time']:5.1f}"
                f"{ours_by_defaults['loss'] / their['loss']:8.3f}  {ours_by_defaults['kind']}"
                + ("" if to_it["loss"] <= their["loss"] else "  HIGHER"),
                flush=True,
            )


def scored(theirs, ours, args):
    """5-fold scores by defaults behind a StandardScaler: accuracy, or R^2."""
    print(f"{'5-fold, hidden (100,) relu':<34}{'ours':>9}{'adam':>9}{'lbfgs':>9}")
    for name in ("digits", "breast_cancer", "wine", "diabetes"):
        for alpha in (1e-4, 10.0 if name == "diabetes" else 1.0):
            problem, means = (name, (100,), "relu", alpha), []
            for who, more in ((ours, {}), (theirs, {}), (theirs, {"solver": "lbfgs"})):
                asked = [who.ask(problem, seed, True, **more) for seed in range(args.seeds)]
                means.append(np.mean([found["scores"] for found in asked]))
            what = f"{name} alpha={alpha:g}, {args.seeds} seeds"
            print(f"{what:<34}" + "".join(f"{mean:9.4f}" for mean in means), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeat", type=int, default=3, help="fits, the quickest counts")
    parser.add_argument("--seeds", type=int, default=1, help="starts of each problem")
    parser.add_argument("--only", help="problems whose data have this in their name")
    parser.add_argument("--scores", action="store_true", help="5-fold scores instead of times")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve)
    import sklearn

    import fastcurv as fc

    config = fc.show_config("dict")
    print(f"{platform.machine()}, {os.cpu_count()} processors; kernels {config['kernels']}", end="")
    print(f", {config['threads']} threads; scikit-learn {sklearn.__version__}")
    theirs, ours = Contender("theirs"), Contender("ours")
    return (scored if args.scores else timed)(theirs, ours, args)


if __name__ == "__main__":
    main()
