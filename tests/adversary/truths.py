"""Objectives and operators of known truth, chosen to mislead; each function takes a random
Generator.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fastcurv as fc
from fastcurv.testing import FunctionObjective, LinearAutoencoder


@dataclass(frozen=True)
class Truth:
    """A point of an objective, with the kinds of verdicts that may be reported for the point."""

    name: str
    ob: Any
    theta: np.ndarray
    certain: frozenset  # kinds that may be certified
    allowed: frozenset  # kinds that may be named at all
    # points that are no minima, at which `minimize` must not succeed
    bad: list = field(default_factory=list)


def powers(draw):
    """Return a `Truth` for a sum of powers of rotated and shifted coordinates, whose critical point
    may be degenerate of any order. Theta is that point or near it.
    """
    n = int(draw.integers(1, 7))
    orders = draw.choice([2, 2, 2, 3, 4, 5, 6], size=n)
    signs = np.where(draw.random(n) < 0.75, 1.0, -1.0)
    scale = 10.0 ** draw.uniform(-8, 8)
    factors = signs * scale * 10.0 ** draw.uniform(-2, 2, n)
    shift = 10.0 ** draw.uniform(-3, 6) * draw.standard_normal(n) * (draw.random() < 0.5)
    R = np.linalg.qr(draw.standard_normal((n, n)))[0] if draw.random() < 0.5 else np.eye(n)

    def coordinates(theta):
        return R @ (theta - shift)

    def value(theta):
        return float(np.sum(factors * coordinates(theta) ** orders))

    def gradient(theta):
        return R.T @ (factors * orders * coordinates(theta) ** (orders - 1.0))

    def hessian(theta):
        curvature = factors * orders * (orders - 1) * coordinates(theta) ** (orders - 2.0)
        H = R.T @ (curvature[:, None] * R)
        return (H + H.T) / 2

    beside = draw.random() < 0.5
    offset = 10.0 ** draw.uniform(-12, -3) * draw.standard_normal(n) if beside else np.zeros(n)
    theta = shift + offset
    quadratic = orders == 2
    up, down = factors[quadratic] > 0, factors[quadratic] < 0
    even = np.all(orders % 2 == 0)
    allowed = {"degenerate", "undecided"} | ({"not_critical"} if beside or np.any(shift) else set())
    certain = {"not_critical"} & allowed
    if quadratic.all():
        kind = "minimum" if up.all() else "maximum" if down.all() else "saddle"
        allowed, certain = allowed | {kind}, certain | {kind}
    elif up.any() and down.any():
        allowed, certain = allowed | {"saddle"}, certain | {"saddle"}
    elif even and np.all(factors > 0):
        allowed |= {"minimum"}
    elif even and np.all(factors < 0):
        allowed |= {"maximum"}
    else:
        allowed |= {"saddle"}
    flaw = [] if even and np.all(factors > 0) else [shift]
    ob = FunctionObjective(n, value, gradient, hessian)
    name = f"powers {orders.tolist()} signs {signs.tolist()} scale {scale:.0e} beside {beside}"
    return Truth(name, ob, theta, frozenset(certain), frozenset(allowed), flaw)


def bounded_saddle(draw):
    """Return a `Truth` at 0 for a function such as x^2 - y^4 + y^6 or a bounded monkey saddle,
    which is flat at 0 and lower nearby.
    """
    kind = str(draw.choice(["quartic", "monkey", "cubic"]))
    c = 10.0 ** draw.uniform(-4, 4)

    def value(t):
        x, y = t
        if kind == "quartic":
            return c * (x**2 - y**4 + y**6)
        if kind == "monkey":
            return c * (x**3 - 3 * x * y**2 + (x**2 + y**2) ** 2)
        return c * (x**2 + y**3 + y**4)

    def gradient(t):
        x, y = t
        if kind == "quartic":
            return c * np.array([2 * x, -4 * y**3 + 6 * y**5])
        if kind == "monkey":
            r = 4 * (x**2 + y**2)
            return c * np.array([3 * x**2 - 3 * y**2 + r * x, -6 * x * y + r * y])
        return c * np.array([2 * x, 3 * y**2 + 4 * y**3])

    def hessian(t):
        x, y = t
        if kind == "quartic":
            return c * np.diag([2.0, -12 * y**2 + 30 * y**4])
        if kind == "monkey":
            a = 6 * x + 12 * x**2 + 4 * y**2
            b = -6 * x + 4 * x**2 + 12 * y**2
            return c * np.array([[a, -6 * y + 8 * x * y], [-6 * y + 8 * x * y, b]])
        return c * np.diag([2.0, 6 * y + 12 * y**2])

    ob = FunctionObjective(2, value, gradient, hessian)
    kinds = frozenset({"degenerate", "undecided", "saddle"})
    return Truth(f"{kind} times {c:.0e}", ob, np.zeros(2), frozenset(), kinds, [np.zeros(2)])


def deep_linear(draw):
    """Return a `Truth` for a critical point of a linear autoencoder that keeps a random set of
    principal directions.
    """
    n = int(draw.integers(2, 6))
    p = int(draw.integers(1, n))
    gaps = np.sort(draw.uniform(0.2, 3.0, n))[::-1] + np.arange(n)[::-1]
    family = LinearAutoencoder(gaps, p, rng=int(draw.integers(2**31)))
    size = int(draw.integers(0, p + 1))
    chosen = tuple(sorted((1 + draw.choice(n, size=size, replace=False)).tolist()))
    case = family.case(chosen, rng=int(draw.integers(2**31)))
    allowed = frozenset({case.kind, "degenerate", "undecided", "not_critical"})
    certain = frozenset({case.kind, "not_critical"} - {"degenerate"})
    return Truth(
        f"autoencoder {n}-{p}-{n} at {chosen}", case.objective, case.theta, certain, allowed
    )


def dependent_features(draw):
    """Return a `Truth` for linear regression on nearly dependent features, which has one strict
    minimum. Theta is the minimum or a point near it.
    """
    N, d = int(draw.integers(20, 200)), int(draw.integers(2, 7))
    X = draw.standard_normal((N, d))
    gap = 10.0 ** draw.uniform(-5, 0)
    X[:, -1] = X[:, 0] + gap * draw.standard_normal(N)
    if draw.random() < 0.5:
        X[:, 0] = 1 + gap * draw.standard_normal(N)
    scale = 10.0 ** draw.uniform(-4, 5)
    y = scale * (X @ draw.standard_normal(d) + draw.standard_normal(N))
    ob = fc.Objective(fc.MLP([d, 1]), X, y, loss="mse")
    A = np.column_stack([X, np.ones(N)]).astype(np.longdouble)
    theta = np.linalg.lstsq(A.astype(float), y, rcond=None)[0]
    for _ in range(3):
        residual = np.asarray(y - A @ theta, float)
        theta = theta + np.linalg.lstsq(A.astype(float), residual, rcond=None)[0]
    off = draw.random() < 0.3
    if off:
        theta = theta * (1 + draw.standard_normal(d + 1) * 10.0 ** draw.uniform(-6, 0))
    allowed = {"minimum", "not_critical", "undecided", "degenerate"}
    certain = {"minimum", "not_critical"}
    return Truth(
        f"features {gap:.0e} apart, targets {scale:.0e}, off {off}",
        ob,
        theta,
        frozenset(certain),
        frozenset(allowed),
    )


def shifted_targets(draw):
    """Return a `Truth` for a small network at a random start with distant targets, which is not
    critical and must not be certified.
    """
    sizes = [int(draw.integers(1, 5)), int(draw.integers(1, 6)), 1]
    model = fc.MLP(sizes, str(draw.choice(["tanh", "sigmoid", "softplus", "gelu"])))
    N = int(draw.integers(10, 60))
    X = draw.standard_normal((N, sizes[0]))
    level = 10.0 ** draw.uniform(1, 6)
    ob = fc.Objective(model, X, level + draw.standard_normal(N), loss="mse")
    theta = model.init(rng=int(draw.integers(2**31)))
    kinds = frozenset({"not_critical", "undecided"})
    return Truth(f"{sizes} start, targets near {level:.0e}", ob, theta, kinds, kinds)


def flat_mean(draw):
    """Return a `Truth` for a linear model whose predictions have the mean of the targets but a
    wrong slope, far from the minimum.
    """
    N = int(draw.integers(10, 100))
    x = draw.standard_normal((N, 1))
    level = 10.0 ** draw.uniform(0, 8)
    y = level + x[:, 0] * 10.0 ** draw.uniform(-2, 1)
    ob = fc.Objective(fc.MLP([1, 1]), x, y, loss="mse")
    theta = np.array([0.0, level + (y - level).mean()])
    kinds = frozenset({"not_critical", "undecided"})
    return Truth(f"slope missed at level {level:.0e}", ob, theta, kinds, kinds)


def separable(draw):
    """Return a `Truth` for separable classes without l2, whose infimum is at infinity, so no point
    is a minimum.
    """
    N, d, c = int(draw.integers(6, 40)), int(draw.integers(2, 5)), int(draw.integers(2, 5))
    centres = 10 * draw.standard_normal((c, d))
    labels = draw.integers(c, size=N)
    X = centres[labels] + 0.1 * draw.standard_normal((N, d))
    ob = fc.Objective(fc.MLP([d, c]), X, labels, loss="cross_entropy")
    theta = np.zeros(ob.model.n_params)
    for _ in range(int(draw.integers(20, 400))):
        theta = theta - 0.3 * ob.gradient(theta)
    kinds = frozenset({"not_critical", "undecided", "degenerate"})
    return Truth(f"separable {d}-{c}, N {N}", ob, theta, frozenset({"not_critical"}), kinds)


TRUTHS = (
    powers,
    bounded_saddle,
    deep_linear,
    dependent_features,
    shifted_targets,
    flat_mean,
    separable,
)
