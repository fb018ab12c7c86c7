"""L1. Poor local minima are real in small networks, and vanish with width.

One hidden layer of 2 to 16 units, 20 starts for each width on each of five data sets, trained until
they rest. The share of starts that end within 10% of the lowest loss found at that width, with 95%
intervals; then the same for one to four hidden layers of six units.

Half right: "you are unlikely to get stuck in bad local optima so long as the network is reasonably
large". Width does it. Depth at one width is another matter: the picture says how it goes.

Not shown: whether the lowest loss found is the lowest there is; fresh data, since all losses are
those of training; and widths above 16.
"""

import numpy as np
from common import Outcome, binomial_interval, command_line, pick, save, select, table_of, two_spirals

import fastcurv as fc
from fastcurv import plots

DATA_SETS = ("two spirals", "two moons", "waves", "diabetes", "random labels")
WIDTHS = (2, 3, 4, 6, 8, 16, 32)
DEPTHS = (1, 2, 4)


def objective(name, sizes, l2=1e-4):
    """One of the data sets, with tanh units."""
    X, y, loss = data(name)
    outputs = {"softmax": 3}.get(loss, 1)
    kind = {"mse": "mse", "logistic": "binary_cross_entropy", "softmax": "cross_entropy"}[loss]
    return fc.Objective(fc.MLP([X.shape[1], *sizes, outputs]), X, y, loss=kind, l2=l2)


def data(name):
    """Features, targets, and which loss fits them."""
    from sklearn import datasets

    rng = np.random.default_rng(0)
    if name == "two spirals":
        X, y = two_spirals(100, noise=0.1, turns=1.5)
        return X, y.astype(float), "logistic"
    if name == "two moons":
        X, y = datasets.make_moons(100, noise=0.15, random_state=0)
        return (X - X.mean(axis=0)) / X.std(axis=0), y.astype(float), "logistic"
    if name == "waves":
        X = rng.uniform(-2, 2, (100, 2))
        return X, np.sin(3 * X[:, 0]) * np.cos(2 * X[:, 1]), "mse"
    rows = rng.permutation(150)[:100]
    if name == "random labels":
        X, y = datasets.load_iris(return_X_y=True)
        X, y = X[rows], rng.permutation(y[rows])
        return (X - X.mean(axis=0)) / X.std(axis=0), y, "softmax"
    X, y = datasets.load_diabetes(return_X_y=True)
    X, y = X[rows][:, [2, 3, 7, 8]], y[rows]
    return (X - X.mean(axis=0)) / X.std(axis=0), (y - y.mean()) / y.std(), "mse"


def experiment(scale):
    """Where each start ends: its loss, and whether a minimum is proved there."""
    rows = []
    for name in pick(scale, DATA_SETS[:1], DATA_SETS, DATA_SETS):
        for width in pick(scale, (2, 16), WIDTHS, WIDTHS):
            rows += ends(name, [width], scale)
        for depth in pick(scale, (), DEPTHS[1:], DEPTHS[1:]):
            rows += ends(name, [6] * depth, scale)
    return rows


def ends(name, sizes, scale):
    ob = objective(name, sizes)
    rows = []
    for seed in range(pick(scale, 20, 20, 60)):
        theta = ob.model.init(seed=seed)
        adam = {"max_iter": 300, "learning_rate": 3e-2, "verdict": False}
        theta = fc.minimize(ob, theta, "adam", **adam).x
        run = fc.minimize(ob, theta, "newton-cg", max_iter=500, seed=0)
        proved = run.kind == "minimum" and run.report.certified
        key = {"data": name, "width": sizes[0], "depth": len(sizes), "seed": seed}
        rows.append(key | {"loss": float(run.fun), "proved": int(proved)})
    return rows


