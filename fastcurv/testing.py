"""Functions, networks and operators whose critical points and spectra are known beforehand.

Everything here is plain NumPy and needs no compiled engine; `compiled` turns a reference network
into the engine's objective. `zoo` is the collection that `classify` is held to.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator

from .checks import as_rng, check_positive_int, check_symmetric_operator, check_vector
from .reference import ReferenceModel, ReferenceObjective


class PrescribedSpectrum(LinearOperator):
    """A symmetric operator with the eigenvalues that it is given, in a random basis.

    ``P diag(values) P'`` with P a product of Householder reflections: a product costs ``O(n
    n_reflections)``, so n = 1e5 is cheap. `eigenvector(i)` is exact to rounding.

    Parameters
    ----------
    values : array_like, shape (n,)
    n_reflections : int
        0 leaves the operator diagonal.
    seed : None, int or numpy.random.Generator
    dtype : dtype

    Examples
    --------
    >>> H = PrescribedSpectrum([-1.0, 2.0, 5.0], seed=0)
    >>> np.linalg.eigvalsh(H @ np.eye(3)).round(12)
    array([-1.,  2.,  5.])
    """

    def __init__(self, values, n_reflections=3, *, seed=0, dtype=np.float64):
        self.values = np.asarray(values, dtype=dtype)
        n = self.values.size
        super().__init__(np.dtype(dtype), (n, n))
        mirrors = as_rng(seed).standard_normal((n_reflections, n))
        self.mirrors = (mirrors / np.linalg.norm(mirrors, axis=1, keepdims=True)).astype(dtype)
        self.n_products = 0

    def _reflect(self, V, order):
        for i in order:
            u = self.mirrors[i]
            V = V - np.multiply.outer(2 * u, u @ V)
        return V

    def _apply(self, V):
        steps = range(len(self.mirrors))
        inner = self._reflect(V, reversed(steps))
        return self._reflect(self.values.reshape(-1, *[1] * (V.ndim - 1)) * inner, steps)

    def _matvec(self, v):
        self.n_products += 1
        return self._apply(v.reshape(-1))

    def _matmat(self, V):
        self.n_products += V.shape[1]
        return self._apply(V)

    def _adjoint(self):
        return self

    def eigenvector(self, i):
        """The unit eigenvector of ``values[i]``."""
        e = np.zeros(self.shape[0], dtype=self.dtype)
        e[i] = 1
        return self._reflect(e, range(len(self.mirrors)))


class QuadraticObjective:
    """``offset + (theta - center)' H (theta - center) / 2`` for any symmetric operator or matrix H.

    Examples
    --------
    >>> ob = QuadraticObjective(np.diag([1.0, -1.0]))
    >>> ob.value([2.0, 0.0]), ob.gradient([2.0, 1.0])
    (2.0, array([ 2., -1.]))
    """

    def __init__(self, H, center=None, offset=0.0):
        self.H = check_symmetric_operator(H)
        self.n_params = self.H.shape[0]
        self.center = (
            np.zeros(self.n_params)
            if center is None
            else check_vector(center, self.n_params, "center")
        )
        self.offset = float(offset)

    def value_and_gradient(self, theta):
        d = check_vector(theta, self.n_params, "theta", float) - self.center
        g = self.H @ d
        return self.offset + 0.5 * float(d @ g), g

    def value(self, theta):
        return self.value_and_gradient(theta)[0]

    def gradient(self, theta):
        return self.value_and_gradient(theta)[1]

    def hessian(self, theta):
        check_vector(theta, self.n_params, "theta")
        return self.H

    def third_bound(self, theta, radius):
        """How fast H can change on a ball: not at all."""
        return 0.0


class FunctionObjective:
    """A function of a few variables by its value, gradient and Hessian matrix; with
    ``third_bound(theta, radius)``, a Lipschitz constant of H on a ball, verdicts can be certified.

    Examples
    --------
    >>> ob = FunctionObjective(2, lambda t: t[0]**2 - t[1]**2, lambda t: np.array([2*t[0], -2*t[1]]),
    ...                        lambda t: np.diag([2.0, -2.0]))
    >>> ob.gradient([1.0, 1.0])
    array([ 2., -2.])
    """

    def __init__(self, n_params, value, gradient, hessian, third_bound=None):
        self.n_params = check_positive_int(n_params, "n_params")
        self._value, self._gradient, self._hessian = value, gradient, hessian
        self._third_bound = third_bound

    def value(self, theta):
        return float(self._value(check_vector(theta, self.n_params, "theta", float)))

    def gradient(self, theta):
        return np.asarray(
            self._gradient(check_vector(theta, self.n_params, "theta", float)), dtype=float
        )

    def value_and_gradient(self, theta):
        return self.value(theta), self.gradient(theta)

    def hessian(self, theta):
        theta = check_vector(theta, self.n_params, "theta", float)
        return check_symmetric_operator(np.asarray(self._hessian(theta), dtype=float))

    def third_bound(self, theta, radius):
        """A Lipschitz constant of the Hessian around theta; infinity where none was given."""
        return np.inf if self._third_bound is None else float(self._third_bound(theta, radius))


@dataclass(frozen=True)
class Case:
    """A point whose verdict is known: what `classify` must answer, None where a count is not known
    in closed form.
    """

    name: str
    objective: object
    theta: np.ndarray
    kind: str
    n_positive: "int | None" = None
    n_negative: "int | None" = None
    n_zero: "int | None" = None
    value: "float | None" = None


class LinearAutoencoder:
    """The linear autoencoder n-p-n on data with covariance eigenvalues `spectrum`: every critical
    point in closed form.

    For every index set I with ``|I| = k <= p`` there is a critical point ``W2 W1 = U_I U_I'``; only
    ``I = {1..p}`` is a minimum [1]_.

    Parameters
    ----------
    spectrum : array_like, shape (n,)
        Distinct and positive, descending.
    p : int
        Width of the hidden layer.
    n_samples : int, optional
        At least n; the data is constructed so that its covariance is exact to rounding.
    seed : None, int or numpy.random.Generator
        For the eigenvectors and the data.

    Attributes
    ----------
    objective : ReferenceObjective
        On `X` with targets `X`, mse, no bias. ``compiled(objective)`` is the engine's.
    X : ndarray, shape (n_samples, n)

    References
    ----------
    .. [1] P. Baldi and K. Hornik, Neural networks and principal component analysis, Neural Networks 2, 1989.

    Examples
    --------
    >>> net = LinearAutoencoder([3.0, 2.0, 1.0], 1, seed=0)
    >>> [(case.name, case.kind, case.n_negative) for case in net.cases()][:2]
    [('3-1-3 autoencoder, I = {}', 'saddle', 3), ('3-1-3 autoencoder, I = {1}', 'minimum', 0)]
    """

    def __init__(self, spectrum, p, *, n_samples=None, seed=0):
        self.spectrum = np.asarray(spectrum, dtype=float)
        n = self.spectrum.size
        if not (np.diff(self.spectrum) < 0).all() or not self.spectrum[-1] > 0:
            raise ValueError(
                f"spectrum is {self.spectrum}; wanted distinct positive numbers, descending"
            )
        self.p = check_positive_int(p, "p")
        N = n if n_samples is None else check_positive_int(n_samples, "n_samples")
        rng = as_rng(seed)
        self.U = np.linalg.qr(rng.standard_normal((n, n)))[0]
        Q = np.linalg.qr(rng.standard_normal((N, n)))[0]
        self.X = (Q * np.sqrt(N * self.spectrum)) @ self.U.T
        self.objective = ReferenceObjective(
            ReferenceModel([n, p, n], "identity", bias=False), self.X, self.X
        )

    def critical_point(self, indices, seed=None):
        """Theta with ``W2 W1 = U_I U_I'``, I counted from 1; with a seed, moved along the symmetry
        ``W2 A^-1, A W1``.
        """
        indices = sorted(int(i) - 1 for i in indices)
        k, n = len(indices), self.spectrum.size
        if (
            len(set(indices)) != k
            or k > self.p
            or indices
            and not (indices[0] >= 0 and indices[-1] < n)
        ):
            raise ValueError(
                f"indices are {indices}; wanted at most {self.p} different numbers from 1 to {n}"
            )
        W1 = np.zeros((self.p, n))
        W1[:k] = self.U[:, indices].T
        W2 = W1.T.copy()
        if seed is not None:
            rng = as_rng(seed)
            A = np.eye(self.p) + 0.3 * rng.standard_normal((self.p, self.p))
            W1, W2 = A @ W1, W2 @ np.linalg.inv(A)
        return np.concatenate([W1.ravel(), W2.ravel()])

    def case(self, indices, seed=None, objective=None):
        """The `Case` of an index set: verdict, loss and inertia in closed form."""
        n, p, inside = self.spectrum.size, self.p, set(indices)
        k = len(inside)
        outside = [j for j in range(1, n + 1) if j not in inside]
        n_negative = sum(j < i for i in inside for j in outside) + (p - k) * (n - k)
        n_zero = k * k + 2 * k * (p - k)
        name = f"{n}-{p}-{n} autoencoder, I = {{{', '.join(map(str, sorted(inside)))}}}"
        return Case(
            name,
            self.objective if objective is None else objective,
            self.critical_point(indices, seed),
            "saddle" if n_negative else "minimum",
            2 * n * p - n_negative - n_zero,
            n_negative,
            n_zero,
            float(self.spectrum[[j - 1 for j in outside]].sum() / n),
        )

    def cases(self, seed=None, limit=None):
        """Every index set, or `limit` of them drawn at random together with the empty and the
        minimal one.
        """
        n = self.spectrum.size
        sets = [s for k in range(min(self.p, n) + 1) for s in combinations(range(1, n + 1), k)]
        if limit is not None and limit < len(sets):
            best = tuple(range(1, self.p + 1))
            drawn = as_rng(seed).permutation(len(sets))[:limit]
            sets = [(), best] + [sets[i] for i in sorted(drawn) if sets[i] not in ((), best)]
        return [self.case(s, seed) for s in sets]


def compiled(ob):
    """The engine's `Objective` of a `ReferenceObjective`: same model, data, loss, weights and l2."""
    from .network.mlp import MLP
    from .network.objective import Objective

    m = ob.model
    model = MLP(
        m.sizes,
        activation=m.activation or "identity",
        bias=m.bias,
        residual=m.residual,
        batch_norm=m.batch_norm,
    )
    return Objective(
        model,
        ob.X,
        ob.y,
        loss=ob.loss,
        l2=ob.l2,
        l2_biases=ob.l2_biases,
        sample_weight=ob.sample_weight,
    )


def lecture_toy():
    """``(1 - w2 w1)^2``: a 1-1-1 linear network without bias on x = 1, y = 1; H(0) = [[0, -2], [-2,
    0]].
    """
    return ReferenceObjective(ReferenceModel([1, 1, 1], "identity", bias=False), [[1.0]], [1.0])


def axis_saddles(count, seed=0):
    """`count` quadratics with random curvatures along the axes, at least one of each sign, as a
    list of `Case`.

    The smallest negative curvature is down to 1e-6 of the largest positive one.
    """
    rng = as_rng(seed)
    cases = []
    for i in range(count):
        n = int(rng.integers(2, 31))
        n_negative = int(rng.integers(1, n))
        size = 10.0 ** rng.uniform(-6, 0, n)
        values = np.where(np.arange(n) < n_negative, -size, size)
        values[-1] = 1.0
        rng.shuffle(values)
        scale = 10.0 ** rng.uniform(-6, 6)
        center = rng.standard_normal(n)
        ob = QuadraticObjective(
            PrescribedSpectrum(scale * values, 0), center, offset=rng.standard_normal()
        )
        cases.append(Case(f"axis saddle {i}", ob, center, "saddle", n - n_negative, n_negative, 0))
    return cases


def zoo():
    """The critical points, plateaus and near misses that `classify` is tested on, as a list of
    `Case`.

    Cost: a second or two, since some of the points are found to rounding by Newton's method.
    """
    cases = list(_functions())
    cases += LinearAutoencoder([5.0, 4.0, 3.0, 2.0, 1.0], 2, seed=1).cases(seed=1)
    cases += LinearAutoencoder([4.0, 1.0, 0.3, 0.1], 1, n_samples=9, seed=2).cases()
    cases += LinearAutoencoder([8.0, 6.0, 5.0, 3.0, 2.0, 0.5], 3, seed=3).cases(seed=3, limit=8)
    cases += [*_convex(), *_dead_relu(), *_xor(), *_embedded_units()]
    return cases


def _functions():
    def function(name, kind, counts, value, gradient, hessian, third=lambda t, r: 0.0, n=2):
        ob = FunctionObjective(n, value, gradient, hessian, third)
        return Case(name, ob, np.zeros(n), kind, *counts, 0.0)

    yield function(
        "x^2 - y^2",
        "saddle",
        (1, 1, 0),
        lambda t: t[0] ** 2 - t[1] ** 2,
        lambda t: [2 * t[0], -2 * t[1]],
        lambda t: np.diag([2.0, -2.0]),
    )
    yield function(
        "monkey saddle",
        "degenerate",
        (0, 0, 2),
        lambda t: t[0] ** 3 - 3 * t[0] * t[1] ** 2,
        lambda t: [3 * t[0] ** 2 - 3 * t[1] ** 2, -6 * t[0] * t[1]],
        lambda t: [[6 * t[0], -6 * t[1]], [-6 * t[1], -6 * t[0]]],
        lambda t, r: 6.0,
    )
    yield function(
        "x^2 - y^4",
        "degenerate",
        (1, 0, 1),
        lambda t: t[0] ** 2 - t[1] ** 4,
        lambda t: [2 * t[0], -4 * t[1] ** 3],
        lambda t: np.diag([2.0, -12 * t[1] ** 2]),
        lambda t, r: 24 * (abs(t[1]) + r),
    )
    yield function(
        "x^2 + y^3",
        "degenerate",
        (1, 0, 1),
        lambda t: t[0] ** 2 + t[1] ** 3,
        lambda t: [2 * t[0], 3 * t[1] ** 2],
        lambda t: np.diag([2.0, 6 * t[1]]),
        lambda t, r: 6.0,
    )
    yield function(
        "-x^2 - 3 y^2",
        "maximum",
        (0, 2, 0),
        lambda t: -(t[0] ** 2) - 3 * t[1] ** 2,
        lambda t: [-2 * t[0], -6 * t[1]],
        lambda t: np.diag([-2.0, -6.0]),
    )
    yield function(
        "zero",
        "degenerate",
        (0, 0, 2),
        lambda t: 0.0,
        lambda t: np.zeros(2),
        lambda t: np.zeros((2, 2)),
    )
    toy = lecture_toy()
    yield Case("toy at the origin", toy, np.zeros(2), "saddle", 1, 1, 0, 1.0)
    yield Case("toy in the valley", toy, np.array([2.0, 0.5]), "minimum", 1, 0, 1, 0.0)


def polish(ob, theta, steps=30):
    """Newton's method with a pseudo-inverse from near a critical point of a small objective, down
    to rounding.
    """
    best = np.array(theta, dtype=float)
    g = ob.gradient(best)
    for _ in range(steps):
        H = np.asarray(ob.hessian(best) @ np.eye(best.size))
        new = best - np.linalg.lstsq(H, g, rcond=1e-10)[0]
        g_new = ob.gradient(new)
        if not np.linalg.norm(g_new) < np.linalg.norm(g):
            break
        best, g = new, g_new
    return best


def _found(ob, theta0):
    """The critical point that BFGS and then Newton's method reach."""
    near = minimize(
        ob.value_and_gradient,
        theta0,
        jac=True,
        method="BFGS",
        options={"gtol": 1e-9, "maxiter": 2000},
    )
    return polish(ob, near.x)


def _convex():
    rng = np.random.default_rng(4)
    X = rng.standard_normal((30, 4))
    ridge = ReferenceObjective(
        ReferenceModel([4, 1], ()), X, X @ rng.standard_normal(4) + 1, l2=0.1
    )
    yield Case("ridge", ridge, polish(ridge, np.zeros(5)), "minimum", 5, 0, 0)
    logistic = ReferenceObjective(
        ReferenceModel([4, 1], ()), X, (X[:, 0] > 0).astype(float), "binary_cross_entropy", l2=0.01
    )
    yield Case("regularised logistic", logistic, polish(logistic, np.zeros(5)), "minimum", 5, 0, 0)
    softmax = ReferenceObjective(
        ReferenceModel([4, 3], ()), X, rng.integers(0, 3, 30), "cross_entropy"
    )
    yield Case("softmax regression", softmax, _found(softmax, np.zeros(15)), "minimum", 10, 0, 5)


def _dead_relu():
    rng = np.random.default_rng(5)
    X = rng.random((12, 2))
    model = ReferenceModel([2, 3, 1], "relu")
    y = rng.standard_normal(12)
    dead = model.flatten(
        [(-np.ones((3, 2)), -np.ones(3)), (rng.standard_normal((1, 3)), np.array([2.0]))]
    )
    yield Case(
        "dead ReLU units off their best bias", ReferenceObjective(model, X, y), dead, "not_critical"
    )
    hinge = ReferenceObjective(model, X, np.zeros(12), "binary_cross_entropy")
    far = model.flatten([(-np.ones((3, 2)), -np.ones(3)), (np.ones((1, 3)), np.array([40.0]))])
    yield Case("dead ReLU units on a slope", hinge, far, "not_critical")
    best = dead.copy()
    best[-1] = y.mean()
    yield Case(
        "dead ReLU units at their best bias",
        ReferenceObjective(model, X, y),
        best,
        "minimum",
        1,
        0,
        12,
    )


def _xor():
    X, y = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]]), np.array([0.0, 1, 1, 0])
    ob = ReferenceObjective(ReferenceModel([2, 2, 1], "tanh"), X, y)
    origin = np.zeros(9)
    origin[-1] = 0.5
    yield Case("XOR at the origin", ob, origin, "degenerate", 1, 0, 8, 0.25)
    strong = ReferenceObjective(ReferenceModel([2, 2, 1], "tanh"), X, y, l2=1e-3)
    theta = _found(strong, np.array([1.0, 1, 1, 1, 1, -1, 1, -1, 0]))
    yield Case("XOR solved, with l2", strong, theta, "minimum", 9, 0, 0)


def _embedded_units():
    """A stuck one-unit tanh net in a two-unit one: a unit of zeros, and the unit split in two
    (Fukumizu, Amari 2000).
    """
    rng = np.random.default_rng(6)
    X = rng.standard_normal((20, 2))
    y = np.tanh(X @ [1.0, 0.5]) - 0.7 * np.tanh(X @ [-0.3, 2.0])
    small = ReferenceObjective(ReferenceModel([2, 1, 1], "tanh", bias=False), X, y)
    w, v = np.split(_found(small, np.array([0.5, 0.5, 1.0])), [2])
    wide = ReferenceObjective(ReferenceModel([2, 2, 1], "tanh", bias=False), X, y)
    zero = np.concatenate([w, np.zeros(2), v, [0.0]])
    yield Case("a unit of zeros added", wide, zero, "saddle")
    for share in (-0.5, 0.5):
        split = np.concatenate([w, w, share * v, (1 - share) * v])
        eigenvalues = np.linalg.eigvalsh(wide.hessian(split) @ np.eye(6))
        if eigenvalues[0] < -1e-3 * eigenvalues[-1]:
            yield Case(f"a unit split with shares {share} and {1 - share}", wide, split, "saddle")
