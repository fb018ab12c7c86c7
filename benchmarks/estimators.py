"""The estimators beside scikit-learn's own, in one run: time to an objective no higher than the one
its lbfgs ends at, the look at the curvature included.

For each problem scikit-learn's solver="lbfgs" is fitted as it comes, and its loss_ read. Ours is
given as many iterations as it needs until its loss_ is no higher, and the time of such a fit
counts. Each time is the best of `--repeat` fits. Both start from weights of their own, of the same
seed.

    python benchmarks/estimators.py
"""

import argparse
import os
import platform
import time
import warnings

import numpy as np
import sklearn
from sklearn import datasets
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import scale

import fastcurv as fc

PROBLEMS = [
    ("digits", (100,), "relu", 1e-4),
    ("digits", (100,), "tanh", 1.0),
    ("digits", (64, 32), "tanh", 0.1),
    ("breast_cancer", (100,), "relu", 1e-4),
    ("breast_cancer", (100,), "tanh", 1.0),
    ("wine", (100,), "relu", 1.0),
    ("diabetes", (100,), "relu", 1e-4),
    ("diabetes", (20,), "tanh", 100.0),
    ("digits x 8", (100, 100), "tanh", 1.0),
]


def data(name):
    """Standardised features, and targets; `x 8` repeats the rows with a little noise."""
    base, _, times = name.partition(" x ")
    X, y = getattr(datasets, f"load_{base}")(return_X_y=True)
    X = scale(X)
    if times:
        rng = np.random.default_rng(0)
        X = np.concatenate([X + 0.3 * rng.standard_normal(X.shape) for _ in range(int(times))])
        y = np.tile(y, int(times))
    return X, y


def best(make, X, y, repeat):
    """The quickest of some fits: the estimator and its time."""
    times = []
    for _ in range(repeat):
        net = make()
        start = time.perf_counter()
        net.fit(X, y)
        times.append(time.perf_counter() - start)
    return net, min(times)


def compare(name, hidden, activation, alpha, repeat):
    """One row of the table: times, objectives, ratio, what the look saw."""
    X, y = data(name)
    classes = name != "diabetes"
    common = {
        "hidden_layer_sizes": hidden,
        "activation": activation,
        "alpha": alpha,
        "random_state": 0,
    }
    theirs = MLPClassifier if classes else MLPRegressor
    their, their_time = best(lambda: theirs(**common, solver="lbfgs"), X, y, repeat)
    kind = fc.MLPClassifier if classes else fc.MLPRegressor
    curve = kind(**common, tol=0, max_iter=1000).fit(X, y).loss_curve_
    low = np.flatnonzero(np.array(curve) <= their.loss_)
    steps = max(1, int(low[0])) if low.size else 1000
    ours, our_time = best(lambda: kind(**common, tol=0, max_iter=steps), X, y, repeat)
    return their, their_time, ours, our_time


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeat", type=int, default=3, help="fits, the quickest counts")
    repeat = parser.parse_args().repeat
    warnings.simplefilter("ignore")
    config = fc.show_config("dict")
    print(f"{platform.machine()}, {os.cpu_count()} processors; kernels {config['kernels']}", end="")
    print(f", {config['threads']} threads; scikit-learn {sklearn.__version__}")
    print(f"{'problem':<34}{'lbfgs s':>9}{'loss_':>11}{'ours s':>9}{'loss_':>11}{'ratio':>7}  end")
    for problem in PROBLEMS:
        their, their_time, ours, our_time = compare(*problem, repeat)
        name, hidden, activation, alpha = problem
        what = f"{name} {hidden} {activation} alpha={alpha:g}"
        mark = "" if ours.loss_ <= their.loss_ else " (higher)"
        print(
            f"{what:<34}{their_time:9.3f}{their.loss_:11.4g}{our_time:9.3f}{ours.loss_:11.4g}"
            f"{their_time / our_time:7.1f}  {ours.n_iter_} steps for {their.n_iter_}{mark}"
        )


if __name__ == "__main__":
    main()
