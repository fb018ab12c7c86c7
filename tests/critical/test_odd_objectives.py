"""Objectives whose numbers end: what finders, Newton's walks and verdicts say then."""

from functools import partial

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.critical.find import Steps, dense_steps, grow, krylov_steps, lower_gradient
from fastcurv.critical.nearness import Coordinates, newton_limit
from fastcurv.krylov.trust_region import KrylovSpace
from fastcurv.reference import ReferenceModel, ReferenceObjective
from fastcurv.testing import FunctionObjective, LinearAutoencoder, QuadraticObjective
from fastcurv.testing.zoo import polish

BOWL = QuadraticObjective(np.diag([1.0, 2.0]))


def test_steps_from_what_is_no_matrix_of_numbers():
    g = np.ones(3)
    assert dense_steps(np.full((3, 3), np.nan), g).vectors == []
    flat = dense_steps(np.zeros((3, 3)), g)
    assert flat.vectors == [] and flat.norm == 0
    steep = dense_steps(np.diag([1.0, 2.0, 3.0]), g)
    assert len(steep.vectors) > 0 and all(slope < 0 for slope in steep.slopes)


def test_a_step_to_a_gradient_beyond_all_squares_is_shortened():
    """Where its share of the gradient at hand has no square either."""
    steps = Steps([np.ones(2)], [-1.0], 1.0)
    for far in (1e200, np.inf):
        found = lower_gradient(
            lambda x, far=far: np.full(2, far if x[0] > 0.1 else 1e-42), np.zeros(2), 1e-40, steps
        )
        assert found is not None and 0 < found[0][0] <= 0.1 and found[1][0] == 1e-42


def test_a_krylov_space_of_nothing():
    space = KrylovSpace(3, np.dtype(float), 5)
    space.start(lambda v, out: out.fill(0), np.zeros(3))
    grow(space, 1e-3, 5, lambda: False)
    assert space.m == 0 and krylov_steps(space).norm == 0
    space.start(lambda v, out: out.fill(0), np.ones(3))
    grow(space, 1e-3, 5, lambda: False)
    assert krylov_steps(space).vectors == [] and krylov_steps(space).norm == 0


@pytest.mark.parametrize("method", ["newton-mr", "gradient-norm"])
def test_where_the_gradient_leaves_the_numbers(method):
    """The search stays where it is finite."""
    wall = FunctionObjective(
        2,
        lambda x: float(np.sum(np.sqrt(1 - x**2))),
        lambda x: -x / np.sqrt(1 - x**2),
        lambda x: np.diag(-((1 - x**2) ** -1.5)),
    )
    with np.errstate(all="ignore"):
        found = fc.find_critical_point(wall, np.array([0.9, -0.6]), method=method, max_iter=50)
    assert np.isfinite(found.x).all() and np.abs(found.x).max() < 1
    assert np.linalg.norm(found.x) <= 1e-3


@pytest.mark.parametrize("method", ["newton-mr", "gradient-norm"])
def test_a_start_that_is_critical_costs_next_to_nothing(method):
    ob = QuadraticObjective(np.diag([1.0, -2.0]))
    found = fc.find_critical_point(ob, np.zeros(2), method=method)
    assert found.success and np.array_equal(found.x, np.zeros(2)) and found.nit == 0


def test_newtons_walk_ends_where_it_cannot_go_on():
    bowl, at = QuadraticObjective(np.diag([1.0, 2.0])), np.array([1.0, 1.0])
    free = Coordinates()
    assert newton_limit(bowl, at, np.zeros(2), free)[0] is None, "no gradient, no step"
    none, _, spent = newton_limit(bowl, at, bowl.gradient(at), free, most_products=0)
    assert none is None and spent == 0
    there, _, spent = newton_limit(bowl, at, bowl.gradient(at), free)
    assert np.abs(there).max() <= 1e-12 and spent > 0
    root = FunctionObjective(
        1, lambda x: abs(x[0]) ** 1.5, lambda x: 1.5 * np.sign(x) * np.sqrt(abs(x)),
        lambda x: np.array([[0.75 / np.sqrt(abs(x[0]))]]),
    )  # fmt: skip
    away = newton_limit(root, np.ones(1), np.full(1, 1.5), free)
    assert away[0] is None, "each step crosses to the other side and halves nothing"


def test_autoencoders_that_are_none():
    for spectrum in ([1.0, 1.0], [2.0, 0.0], [1.0, 2.0], [np.nan, 1.0]):
        with pytest.raises(
            ValueError, match="distinct positive numbers, descending|finite numbers"
        ):
            LinearAutoencoder(spectrum, 1)
    net = LinearAutoencoder([3.0, 2.0, 1.0], 2, seed=0)
    for wrong in ([1, 1], [1, 2, 3], [0], [4]):
        with pytest.raises(ValueError, match="at most 2 different numbers from 1 to 3"):
            net.critical_point(wrong)
    for indices in ([], [1], [3, 1]):
        theta = net.critical_point(indices, seed=1)
        assert np.abs(net.objective.gradient(theta)).max() <= 1e-12


def test_newtons_method_takes_no_more_steps_than_it_may():
    quartic = FunctionObjective(
        1, lambda x: x[0] ** 4, lambda x: 4 * x**3, lambda x: np.diag(12 * x**2)
    )
    assert polish(quartic, np.ones(1), steps=2) == pytest.approx(4 / 9, rel=1e-14)
    assert np.abs(polish(BOWL, np.ones(2))).max() <= 1e-15


def test_products_with_nothing():
    net = ReferenceObjective(ReferenceModel([2, 3, 1]), np.ones((4, 2)), np.zeros(4), "mse")
    H = net.hessian(np.linspace(-1, 1, net.n_params))
    assert not (H @ np.zeros(net.n_params)).any()
    assert np.isnan(H @ np.full(net.n_params, np.nan)).all()


class Writes(LinearOperator):
    """A symmetric matrix as an operator that returns one buffer again and again, or the vector it
    was given with the product in its place.
    """

    def __init__(self, A, way):
        super().__init__(A.dtype, A.shape)
        self.A, self.way, self.out = A, way, np.empty(len(A))

    def _matvec(self, v):
        v = v.reshape(-1)
        if self.way == "plain":
            return self.A @ v
        out = v if self.way == "in place" else self.out
        out[:] = self.A @ v
        return out

    def _matmat(self, V):
        return np.stack([self._matvec(v).copy() for v in V.T.copy()], axis=1)


@pytest.mark.parametrize("way", ["in place", "one buffer"])
def test_operators_that_write_where_they_read_change_nothing(way):
    rng = np.random.default_rng(0)
    A = rng.standard_normal((40, 40))
    A, b = A + A.T, rng.standard_normal(40)
    one, two = Writes(A, "plain"), Writes(A, way)
    for ask in (
        lambda H: fc.eigsh(H, 3, "LA", seed=0).values,
        lambda H: fc.eigsh(H, 3, "BE", v0=np.eye(40)[:, :2], seed=0).values,
        lambda H: fc.trace(H, 20, seed=0).estimate,
        lambda H: fc.spectral_density(H, 4, 10, seed=0).nodes,
        lambda H: fc.newton_step(H, b, damping=30.0),
        lambda H: fc.saddle_free_newton_step(H, b, k=10),
        fc.eigvalsh,
    ):
        assert np.array_equal(ask(one), ask(two))
    for options in ({}, {"dense_below": 1, "failure_probability": 1e-6}):
        first, second = (fc.classify(QuadraticObjective(H), 0 * b, **options) for H in (one, two))
        assert first.kind == second.kind == "saddle" and first.reason == second.reason


def test_products_that_are_no_real_numbers_are_refused():
    A = np.diag(np.arange(1.0, 9.0))
    H = LinearOperator((8, 8), matvec=lambda v: (A @ v) * (1 + 1e-3j), dtype=float)
    for ask in (lambda H: fc.eigsh(H, 2), fc.inertia, lambda H: fc.trace(H, 4)):
        with pytest.raises(TypeError, match="wanted real numbers"):
            ask(H)


@pytest.mark.parametrize("method", ["trust-region", "newton-cg", "l-bfgs", "adam", "cubic"])
def test_a_gradient_that_comes_in_one_buffer_changes_nothing(method):
    def gradient(t):
        return np.array([4 * t[0] * (t[0] ** 2 - 1) + 0.1, t[1]])

    def value(t):
        return float((t[0] ** 2 - 1) ** 2 + 0.5 * t[1] ** 2 + 0.1 * t[0])

    def hessian(t):
        return np.diag([12 * t[0] ** 2 - 4, 1.0])

    buffer = np.empty(2)

    def reused(t):
        buffer[:] = gradient(t)
        return buffer

    start, ends = np.array([0.3, 0.2]), []
    for g in (gradient, reused):
        ob = FunctionObjective(2, value, g, hessian)
        ends.append(fc.minimize(ob, start, method, seed=0, max_iter=100))
    assert np.array_equal(ends[0].x, ends[1].x) and ends[0].message == ends[1].message


class Writing:
    """``||theta||^2 / 2 - theta_0^2``, by methods of which one works in place."""

    n_params = 3

    def __init__(self, careless):
        self.careless = careless

    def given(self, theta, name):
        return theta if name in self.careless else theta.copy()

    def value(self, theta):
        theta = self.given(theta, "value")
        theta -= 1.0
        return float(theta @ theta - 2 * theta[0] ** 2) / 2

    def gradient(self, theta):
        theta = self.given(theta, "gradient")
        theta -= 1.0
        return theta * [-1.0, 1.0, 1.0]

    def hessian(self, theta):
        theta = self.given(theta, "hessian")
        theta -= 1.0
        return np.diag([-1.0, 1.0, 1.0])


@pytest.mark.parametrize("careless", ["value", "gradient", "hessian"])
@pytest.mark.parametrize("call", [fc.classify, fc.minimize, fc.find_critical_point, fc.escape])
def test_an_objective_that_writes_into_theta_is_refused(call, careless):
    """What it says afterwards is of another point: a saddle could be called a minimum."""
    if call is fc.escape and careless == "gradient":
        return  # it asks for none
    theta = np.full(3, 1.5)
    with pytest.raises(ValueError, match="writes into the theta"):
        call(Writing({careless}), theta)
    assert np.all(theta == 1.5)


class Shaped:
    """A bowl whose value is an array."""

    n_params = 2

    def __init__(self, shape):
        self.shape = shape

    def value(self, theta):
        return np.full(self.shape, 0.5 * float(theta @ theta))

    def gradient(self, theta):
        return theta.copy()

    def hessian(self, theta):
        return np.eye(2)


@pytest.mark.parametrize("shape", [(1,), (1, 1), ()])
def test_a_value_may_be_an_array_of_one_number(shape):
    ob, start = Shaped(shape), np.ones(2)
    assert fc.classify(ob, np.zeros(2)).kind == "minimum"
    for method in ("newton", "trust-region", "l-bfgs", "newton-cg"):
        found = fc.minimize(ob, start, method)
        assert found.success and isinstance(found.fun, float), found.message
    assert fc.find_critical_point(ob, start).fun == 0
    assert isinstance(fc.escape(ob, start).fun, float)


def test_a_value_of_many_numbers_is_named():
    for call in (fc.classify, fc.minimize, fc.find_critical_point, fc.escape):
        with pytest.raises(TypeError, match=r"shape \(3,\).*wanted a number"):
            call(Shaped((3,)), np.zeros(2))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    "scale, size",
    [(1e-300, 1e300), (1e-160, 1e155), (1.0, 1e155), (1e160, 1e-160), (1e160, 1.0), (1e300, 1.0)],
)
def test_numbers_whose_squares_are_none_crash_nothing(scale, size):
    """A saddle of any curvature from any distance: an answer, or ValueError for what overflows."""
    ob = QuadraticObjective(scale * np.diag([-1.0, 0.1, 0.4, 1.0]))
    theta = size * np.array([0.5, -1.0, 0.3, 2.0])
    calls = [fc.classify, fc.find_critical_point, fc.escape]
    methods = ("newton", "trust-region", "cubic", "newton-cg", "saddle-free-newton", "l-bfgs")
    calls += [partial(fc.minimize, method=name, max_iter=20, max_time=1.0) for name in methods]
    calls += [partial(fc.classify, dense_below=1, failure_probability=1e-3)]
    for call in calls:
        try:
            call(ob, theta)
        except ValueError as error:
            assert "wanted" in str(error) or "finite" in str(error)


class Wrong:
    """``t't`` of two parameters, with one part of it that does not fit."""

    n_params = 2

    def __init__(self, **parts):
        self.parts = {"gradient": lambda t: 2 * t, "hessian": lambda t: 2 * np.eye(2)} | parts

    def value(self, t):
        return float(t @ t)

    def gradient(self, t):
        return self.parts["gradient"](t)

    def hessian(self, t):
        return self.parts["hessian"](t)


@pytest.mark.parametrize(
    "part, given, kind, words",
    [
        ("hessian", [[2.0, 0.0], [0.0, 2.0]], TypeError, "hessian is a list; wanted a symmetric"),
        ("hessian", np.eye(3), ValueError, r"hessian has shape \(3, 3\); wanted \(2, 2\)"),
        ("hessian", np.ones(2), ValueError, r"hessian has shape \(2,\); wanted \(2, 2\)"),
        ("gradient", np.ones(3), ValueError, r"gradient has shape \(3,\); wanted \(2,\)"),
        ("gradient", np.ones((2, 1)), ValueError, r"gradient has shape \(2, 1\); wanted"),
        ("gradient", None, ValueError, r"gradient has shape \(\); wanted \(2,\)"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        fc.classify,
        fc.escape,
        fc.find_critical_point,
        fc.minimize,
        partial(fc.minimize, method="newton-cg"),
        partial(fc.minimize, method="l-bfgs"),
    ],
)
def test_a_gradient_or_hessian_that_does_not_fit_is_named(call, part, given, kind, words):
    with pytest.raises(kind, match=f"^the objective's {words}"):
        call(Wrong(**{part: lambda t: given}), np.ones(2))
    call(Wrong(), np.ones(2))


def test_a_gradient_of_one_number_may_be_one():
    square = FunctionObjective(1, lambda t: t[0] ** 2, lambda t: 2 * t[0], lambda t: 2 * np.eye(1))
    assert fc.minimize(square, [1.0], "newton-cg").success
    assert fc.classify(square, [0.0]).kind == "minimum"
