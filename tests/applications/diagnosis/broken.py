"""Training runs with one of fifteen kinds of defects, and healthy ones, to evaluate `diagnose`.

``draw(kind, seed)`` trains one network on data, widths and activations with which no threshold of
`diagnose` was chosen. The following command diagnoses 20 runs of each kind and 100 healthy ones,
and prints a table of the diagnoses::

    python -m tests.applications.diagnosis.broken --count 20 --healthy 100
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastcurv as fc
from fastcurv.applications.diagnosis.facts import constant_loss

HEALTHY = "healthy"
CLASSES, NUMBERS = "classes", "numbers"
Rng = np.random.Generator
Table = tuple[np.ndarray, np.ndarray, str]


@dataclass
class Case:
    """A finished training run: its objective, final parameters and history, and the lowest loss
    `best` of other runs for the same data.
    """

    kind: str
    ob: Any
    theta: np.ndarray
    history: Any
    best: float = np.inf
    name: str = ""


class NotBrokenError(Exception):
    """Raised if a training run that should fail succeeds. The caller then draws another run."""


# --------------------------------------------------------------------------------------------------
# Data: tables (X, y, kind) with standardised X. The kind of y is CLASSES or NUMBERS.


def _sklearn(name: str, rng: Rng, n: int = 240) -> Table:
    from sklearn import datasets

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    rows = rng.permutation(len(X))[:n]
    X, y = X[rows].astype(float), y[rows]
    X = X[:, X.std(axis=0) > 0]
    kind = NUMBERS if name == "diabetes" else CLASSES
    return _standard(X), (y - y.mean()) / y.std() if kind == NUMBERS else y.astype(int), kind


def _standard(X: np.ndarray) -> np.ndarray:
    return (X - X.mean(axis=0)) / X.std(axis=0)


def _plane(name: str, rng: Rng, n: int = 240) -> Table:
    """Return (X, y, CLASSES): n standardised samples in the plane, of two classes that no line
    separates.
    """
    if name == "circles":
        from sklearn import datasets

        seed = int(rng.integers(2**31))
        X, y = datasets.make_circles(n, noise=0.08, factor=0.4, random_state=seed)
        return _standard(X), y, CLASSES
    y = np.arange(n) % 2  # two spirals
    t = np.sqrt(rng.uniform(0.05, 1.0, n))
    angle = 2 * np.pi * 0.8 * t + np.pi * y
    X = t[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _standard(X + 0.04 * rng.standard_normal(X.shape)), y, CLASSES


def _blobs(rng: Rng, apart: float = 3.0, n: int = 240) -> Table:
    d, classes = int(rng.integers(2, 7)), int(rng.integers(2, 5))
    centres = apart * rng.standard_normal((classes, d))
    y = rng.integers(classes, size=n)
    y[:classes] = np.arange(classes)
    return _standard(centres[y] + rng.standard_normal((n, d))), y, CLASSES


def _function(name: str, rng: Rng, n: int = 240) -> Table:
    """Return (X, y, NUMBERS): n samples with standardised features, and standardised targets that
    are a function of some features plus a little noise.
    """
    d = {"ripple": 1, "product": 3, "bowl": 4}[name]
    X = _standard(rng.uniform(-1, 1, (n, d)))
    rng.standard_normal(6 * d + 6)  # the evaluated runs were drawn after these numbers
    y = {
        "ripple": lambda: np.cos(3.0 * X[:, 0]) + 0.5 * X[:, 0],
        "product": lambda: X[:, 0] * X[:, 1] + np.abs(X[:, 2]),
        "bowl": lambda: np.exp(-((X[:, :2] ** 2).sum(axis=1))) + 0.3 * X[:, 3],
    }[name]()
    y = (y - y.mean()) / y.std() + rng.choice([0.0, 0.05, 0.2]) * rng.standard_normal(n)
    return X, (y - y.mean()) / y.std(), NUMBERS


DATA: dict[str, Callable[[Rng], Table]] = {
    "iris": lambda rng: _sklearn("iris", rng),
    "cancer": lambda rng: _sklearn("breast_cancer", rng),
    "circles": lambda rng: _plane("circles", rng),
    "spirals": lambda rng: _plane("spirals", rng),
    "ripple": lambda rng: _function("ripple", rng),
    "product": lambda rng: _function("product", rng),
    "bowl": lambda rng: _function("bowl", rng),
}
CURVED = ("circles", "spirals", "ripple", "product", "bowl")
WIDTHS = (6, 12, 24, 40)
PHIS = ("tanh", "relu", "sigmoid", "elu", "silu", "leaky_relu")


# --------------------------------------------------------------------------------------------------
# Networks and training runs.


@dataclass
class Draw:
    """A source of random networks, data and runs."""

    rng: Rng
    name: str = ""

    def data(self, names: Any = None, kind: str | None = None) -> Table:
        while True:
            self.name = str(self.rng.choice(sorted(DATA) if names is None else names))
            table = DATA[self.name](self.rng)
            if kind in (None, table[2]):
                return table

    def hidden(self, most: int = 3) -> list[int]:
        widths = self.rng.choice(WIDTHS, self.rng.integers(1, most + 1))
        return [int(w) for w in widths]

    def phi(self, *of: str) -> str:
        return str(self.rng.choice(of or PHIS))

    def between(self, low: float, high: float) -> float:
        """Return a random number from `low` to `high` whose logarithm is uniformly distributed."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def objective(
        self, table: Table, hidden: Any = None, phi: str | None = None, l2: float | None = None
    ) -> Any:
        X, y, kind = table
        hidden = self.hidden() if hidden is None else hidden
        loss, outputs = "mse", 1
        if kind == CLASSES:
            loss, outputs = "cross_entropy", int(y.max()) + 1
            if outputs == 2 and self.rng.random() < 0.5:
                loss, outputs, y = "binary_cross_entropy", 1, y.astype(float)
        if l2 is None:
            l2 = float(self.rng.choice([1e-4, 1e-3]) if kind == CLASSES else
                       self.rng.choice([0.0, 1e-4, 1e-3]))  # fmt: skip
        model = fc.MLP([X.shape[1], *hidden, outputs], phi or self.phi())
        return fc.Objective(model, X, y, loss=loss, l2=l2, n_threads=1)

    def twins(self, *tables: Table) -> list[Any]:
        """Return one objective for each table (X, y, kind), all with the same random network and
        options.
        """
        state, made = self.rng.bit_generator.state, []
        for table in tables:
            self.rng.bit_generator.state = state
            made.append(self.objective(table))
        return made

    def start(self, ob: Any) -> np.ndarray:
        return ob.model.init(rng=int(self.rng.integers(2**31)))

    def run(self, ob: Any, theta: np.ndarray, factor: float = 1.0, **more: Any) -> Any:
        """Train from theta by a random first-order method, or by `method`, with its usual learning
        rate times `factor`, and return the result of `fc.minimize`.
        """
        method = more.pop("method", None) or str(self.rng.choice(["sgd", "momentum", "adam"]))
        top = largest_eigenvalue(ob, theta)
        if method == "adam":
            rate = self.between(3e-3, 2e-2)
        else:
            rate = self.rng.uniform(0.4, 1.0) / top * (1.0 if method == "sgd" else 0.3)
        options: dict[str, Any] = {"max_iter": int(self.rng.integers(150, 400))}
        if self.rng.random() < 0.3:
            options |= {"batch_size": 32, "max_iter": int(self.rng.integers(20, 60))}
        options |= {"learning_rate": rate * factor, "rng": int(self.rng.integers(2**31))} | more
        return fc.minimize(ob, theta, method, verdict=False, **options)


def largest_eigenvalue(ob: Any, theta: np.ndarray) -> float:
    """Return an estimate, by power iteration, of the largest absolute eigenvalue of the Hessian at
    theta.
    """
    v, H, top = np.random.default_rng(0).standard_normal(theta.size), ob.hessian(theta), 0.0
    for _ in range(25):
        v /= np.linalg.norm(v)
        w = H @ v
        top, v = float(np.linalg.norm(w)), w
    return max(top, 1e-6)


def known_best(ob: Any, tries: int = 2) -> float:
    """Return the lowest loss that L-BFGS reaches from `tries` usual initial parameters."""
    options: dict[str, Any] = {"verdict": False, "max_iter": 400}
    return min(
        float(fc.minimize(ob, ob.model.init(rng=seed), "l-bfgs", **options).fun)
        for seed in range(tries)
    )


def failed_case(
    kind: str, draw: Draw, run: Any, ob: Any, good: Any = None, least: float = 0.4
) -> Case:
    """Return the run as a Case, or raise NotBrokenError if the run went well. `good` is the
    objective without the defect. A failed run must leave at least the fraction `least` of the
    possible decrease.
    """
    best = known_best(ob if good is None else good)
    loss = ob.value(run.x)
    if not loss - best >= least * max(constant_loss(ob) - best, 0.0) or loss < 2 * best:
        raise NotBrokenError(kind)
    return Case(kind, ob, run.x, run.history, best, draw.name)


# --------------------------------------------------------------------------------------------------
# Kinds of defects.


def rate_too_large(d: Draw) -> Case:
    ob = d.objective(d.data())
    theta, method = d.start(ob), str(d.rng.choice(["sgd", "momentum", "adam"]))
    if method == "adam":
        run = d.run(ob, theta, method=method, learning_rate=d.between(0.7, 8.0))
    else:
        stable = 2.0 if method == "sgd" else 3.8
        rate = stable / largest_eigenvalue(ob, theta) * d.between(3.0, 60.0)
        run = d.run(ob, theta, method=method, learning_rate=rate)
    return failed_case("learning rate too large", d, run, ob)


def rate_too_small(d: Draw) -> Case:
    ob = d.objective(d.data())
    return failed_case(
        "learning rate too small", d, d.run(ob, d.start(ob), d.between(1e-5, 4e-3)), ob
    )


def weights_too_large(d: Draw) -> Case:
    ob = d.objective(d.data())
    theta = d.between(8.0, 40.0) * d.start(ob)
    return failed_case("initial weights too large", d, d.run(ob, theta), ob)


def weights_too_small(d: Draw) -> Case:
    ob = d.objective(d.data(), d.hidden(4))
    theta = d.between(1e-4, 5e-2) * d.start(ob)
    return failed_case("initial weights too small", d, d.run(ob, theta), ob)


def inputs_unscaled(d: Draw) -> Case:
    X, y, kind = d.data()
    k = X.shape[1]
    how = d.rng.integers(4)
    if how == 0:
        Z = X * d.between(30.0, 1000.0)
    elif how == 1:
        Z = X + d.between(20.0, 300.0) * d.rng.choice([-1, 1], k)
    elif how == 2 and k > 2:
        Z = X * np.exp(d.rng.uniform(np.log(3), np.log(1000), k))
    else:
        Z = 100 * (X - X.min(axis=0))
    ob, good = d.twins((Z, y, kind), (X, y, kind))
    fixed = (
        {"learning_rate": float(d.rng.choice([1e-2, 1e-3, 1e-1]))} if d.rng.random() < 0.3 else {}
    )
    return failed_case("inputs unscaled", d, d.run(ob, d.start(ob), **fixed), ob, good)


def one_input_unscaled(d: Draw) -> Case:
    X, y, kind = d.data()
    while X.shape[1] < 2:
        X, y, kind = d.data()
    Z = X.copy()
    Z[:, d.rng.integers(X.shape[1])] *= d.between(30.0, 3000.0)
    ob, good = d.twins((Z, y, kind), (X, y, kind))
    return failed_case("one feature on a different scale", d, d.run(ob, d.start(ob)), ob, good)


def saturated_sigmoids(d: Draw) -> Case:
    ob = d.objective(d.data(), phi="sigmoid")
    theta = d.start(ob)
    bias = d.rng.random() < 0.6
    for W, b in ob.model.unflatten(theta)[:-1]:
        if bias:
            b += d.rng.uniform(8, 20) * (1 if d.rng.random() < 0.5 else
                                         d.rng.choice([-1, 1], len(b)))  # fmt: skip
        else:
            W *= 60
    return failed_case("saturated units", d, d.run(ob, theta), ob)


def dead_relus(d: Draw) -> Case:
    ob = d.objective(d.data(), phi="relu")
    theta = d.start(ob)
    layers = ob.model.unflatten(theta)[:-1]
    layer = d.rng.integers(len(layers))
    for l, (_, b) in enumerate(layers):
        if l == layer or d.rng.random() < 0.3:
            n_dead = int(np.ceil(d.rng.uniform(0.75, 1.0) * len(b)))
            b[d.rng.permutation(len(b))[:n_dead]] -= d.rng.uniform(15, 40)
    return failed_case("dead relus", d, d.run(ob, theta), ob)


def symmetric_saddle(d: Draw) -> Case:
    ob = d.objective(d.data())
    theta, how = d.start(ob), d.rng.integers(3)
    if how == 0:
        theta[:] = 0
    elif how == 1:
        for W, _ in ob.model.unflatten(theta):
            W[:] = d.rng.uniform(0.1, 0.5)
    else:  # every hidden layer consists of copies of one unit
        for l, (W, _) in enumerate(ob.model.unflatten(theta)):
            if l < len(ob.model.sizes) - 2:
                W[:] = W[:1]
            if l:
                W[:] = W[:, :1]
    return failed_case("saddle or copied units", d, d.run(ob, theta), ob)


def depth_plateau(d: Draw) -> Case:
    width = int(d.rng.choice([8, 12, 16]))
    depth = int(d.rng.integers(12, 22))
    ob = d.objective(d.data(), [width] * depth, "sigmoid", 0.0)
    run = d.run(ob, d.start(ob), batch_size=None, max_iter=100)
    flat = fc.Objective(fc.MLP([ob.model.sizes[0], width, ob.model.sizes[-1]]), ob.X, ob.y, ob.loss)
    return failed_case("vanishing gradient with depth", d, run, ob, flat)


def separable(d: Draw) -> Case:
    for _ in range(50):
        if d.rng.random() < 0.5:
            X, y, kind = DATA[str(d.rng.choice(["iris", "cancer"]))](d.rng)
        else:
            X, y, kind = _blobs(d.rng, 6.0)
        ob = d.objective((X, y, kind), d.hidden(2), l2=0.0)
        if d.rng.random() < 0.6:
            run = d.run(ob, d.start(ob))
        else:
            run = fc.minimize(ob, d.start(ob), "l-bfgs", max_iter=100)
        if ob.certificates.ray_to_infimum(run.x) is not None:
            return Case("no minimum without l2", ob, run.x, run.history, 0.0, d.name)
    raise NotBrokenError


def too_few_units(d: Draw) -> Case:
    table = d.data(CURVED)
    n = int(d.rng.integers(1, 3))
    ob = d.objective(table, [n], d.phi("tanh", "sigmoid", "softplus"))
    wide = ob.with_model(fc.MLP([ob.model.sizes[0], 24, ob.model.sizes[-1]], "tanh"))
    method = str(d.rng.choice(["trust-region", "l-bfgs", "adam"]))
    more: Any = {"learning_rate": 0.03, "max_iter": 1500} if method == "adam" else {}
    run = min(
        (fc.minimize(ob, d.start(ob), method, **more) for _ in range(2)), key=lambda run: run.fun
    )
    return failed_case("too few units", d, run, ob, wide)


def labels_shuffled(d: Draw) -> Case:
    X, y, kind = d.data()
    ob = d.objective((X, d.rng.permutation(y), kind))
    return Case("labels shuffled", ob, *_ran(d.run(ob, d.start(ob))), name=d.name)


def _ran(run: Any) -> tuple[np.ndarray, Any]:
    return run.x, run.history


def loss_unfit(d: Draw) -> Case:
    how = d.rng.integers(3)
    if how == 0:  # class labels as real targets
        X, y, kind = d.data(kind=CLASSES)
        while y.max() < 2:
            X, y, kind = d.data(kind=CLASSES)
        ob = d.objective((X, y.astype(float), NUMBERS))
    elif how == 1:  # real targets as probabilities
        X, y, kind = d.data(kind=NUMBERS)
        y = (y - y.min()) / np.ptp(y)
        model = fc.MLP([X.shape[1], *d.hidden(), 1], d.phi())
        ob = fc.Objective(model, X, y, loss="binary_cross_entropy", n_threads=1)
    else:  # real targets as class labels
        X, y, kind = d.data(kind=NUMBERS)
        y = np.unique(np.round(y * d.rng.integers(5, 12)).astype(int), return_inverse=True)[1]
        ob = d.objective((X, y, CLASSES))
    return Case("loss does not match the targets", ob, *_ran(d.run(ob, d.start(ob))), name=d.name)


def l2_too_large(d: Draw) -> Case:
    table, state = d.data(), d.rng.bit_generator.state
    ob = d.objective(table, l2=d.between(0.1, 10.0))
    d.rng.bit_generator.state = state
    good = d.objective(table, l2=1e-4)
    if d.rng.random() < 0.5:
        run = d.run(ob, d.start(ob))
    else:
        run = fc.minimize(ob, d.start(ob), str(d.rng.choice(["l-bfgs", "trust-region"])))
    return failed_case("l2 too large", d, run, ob, good)


def healthy(d: Draw) -> Case:
    ob = d.objective(d.data(), d.hidden(2))
    method = str(d.rng.choice(["sgd", "momentum", "adam", "l-bfgs", "trust-region", "newton-cg"]))
    if method in ("sgd", "momentum", "adam"):
        run = d.run(ob, d.start(ob), method=method, batch_size=None, max_iter=1500)
    else:
        run = fc.minimize(ob, d.start(ob), method, max_iter=300, rng=0)
    best = known_best(ob)
    if ob.value(run.x) > best + 0.1 * (constant_loss(ob) - best):
        raise NotBrokenError
    return Case(HEALTHY, ob, run.x, run.history, name=d.name)


KINDS: dict[str, Callable[[Draw], Case]] = {
    "learning rate too large": rate_too_large,
    "learning rate too small": rate_too_small,
    "initial weights too large": weights_too_large,
    "initial weights too small": weights_too_small,
    "inputs unscaled": inputs_unscaled,
    "one feature on a different scale": one_input_unscaled,
    "saturated units": saturated_sigmoids,
    "dead relus": dead_relus,
    "saddle or copied units": symmetric_saddle,
    "vanishing gradient with depth": depth_plateau,
    "no minimum without l2": separable,
    "too few units": too_few_units,
    "labels shuffled": labels_shuffled,
    "loss does not match the targets": loss_unfit,
    "l2 too large": l2_too_large,
    HEALTHY: healthy,
}
# kinds for which no lower loss can be compared: the cure changes the network or the targets, or
# the loss has no minimum
NO_LOWER = ("no minimum without l2", "labels shuffled", "loss does not match the targets")


def draw(kind: str, seed: int) -> Case:
    """Return a training run with the defect `kind` as a Case. Equal arguments give equal runs."""
    number = list(KINDS).index(kind)
    rng = np.random.default_rng([number, seed, 1])
    for _ in range(60):
        d = Draw(rng)
        try:
            with np.errstate(all="ignore"):
                return KINDS[kind](d)
        except NotBrokenError:
            continue
    raise AssertionError(f"60 draws of {kind!r} trained well")


def helped(case: Case, change: Any) -> bool:
    """Return True if the advised `change` lowers the loss tenfold, or to within 10% of the
    lowest known loss. For separable classes without l2, the result must be a minimum. For defects
    in NO_LOWER, the loss must be at most 0.8 times that of a constant prediction.
    """
    before = case.ob.value(case.theta)
    with np.errstate(all="ignore"):
        found = change.apply(case.ob, case.theta)
    if case.kind == "no minimum without l2":
        return bool(found.kind == "minimum")
    if case.kind in NO_LOWER:
        return bool(found.fun <= 0.8 * constant_loss(change.new_objective(case.ob)))
    return bool(found.fun <= 0.1 * before or found.fun <= 1.1 * min(case.best, before) + 1e-12)


def main() -> None:
    """Diagnose the runs of all kinds, and print the diagnoses of each kind and their accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--healthy", type=int, default=100)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    args = parser.parse_args()
    right = total = 0
    for kind in args.kinds:
        count = args.healthy if kind == HEALTHY else args.count
        said: Counter[str] = Counter()
        for seed in range(count):
            case = draw(kind, seed)
            found = fc.diagnose(case.ob, case.theta, case.history)
            usual = HEALTHY if found.healthy else "unknown"
            said[found.causes[0].name if found.causes else usual] += 1
        if kind != HEALTHY:
            right, total = right + said[kind], total + count
        row = ", ".join(f"{name} {n}" for name, n in said.most_common())
        print(f"{kind:<30} {said[kind]:3d} of {count:3d}  {row}", flush=True)
    print(f"causes named {right} of {total}")


if __name__ == "__main__":
    main()
