"""User-defined objectives that do not fit, and verdicts if bounds are unknown, spaces are empty or
numbers overflow.
"""

from functools import partial

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.critical.evidence import symmetry_tangents
from fastcurv.critical.nearness import (
    CurvatureCoordinates,
    finite_gradient_and_error,
    follow_newton_steps,
    gradient_and_error,
)
from fastcurv.krylov.trust_region import new_krylov_space
from fastcurv.optimize.residual import (
    NewtonMRSteps,
    dense_newton_mr_steps,
    extend_krylov_space,
    krylov_newton_mr_steps,
    reduce_gradient_norm,
)
from fastcurv.testing import FunctionObjective, LinearAutoencoder, QuadraticObjective
from tests import nets

pytestmark = pytest.mark.by_day(one_of="dtype")

BOWL = QuadraticObjective(np.diag([1.0, 2.0, 3.0]))


# --- parts of an objective that do not fit, or are written to


class BadlyShaped:
    """The function ``t't`` of two parameters, one of whose results has a wrong type or shape."""

    n_params = 2

    def __init__(self, **parts):
        self.parts = {"gradient": lambda t: 2 * t, "hessian": lambda t: 2 * np.eye(2)} | parts

    def value(self, t):
        return float(t @ t)

    def gradient(self, t):
        return self.parts["gradient"](t)

    def hessian(self, t):
        return self.parts["hessian"](t)


BAD_PARTS = [
    ("hessian", [[2.0, 0.0], [0.0, 2.0]], TypeError, "hessian must be a symmetric.*got a list"),
    ("hessian", np.eye(3), ValueError, r"hessian must have shape \(2, 2\).*got \(3, 3\)"),
    ("hessian", np.ones(2), ValueError, r"hessian must have shape \(2, 2\).*got \(2,\)"),
    ("gradient", np.ones(3), ValueError, r"gradient must have shape \(2,\).*got \(3,\)"),
    ("gradient", np.ones((2, 1)), ValueError, r"gradient must have shape .*got \(2, 1\)"),
    ("gradient", None, ValueError, r"gradient must have shape \(2,\).*got \(\)"),
]
CALLS = [fc.classify, fc.escape, fc.find_critical_point, fc.minimize]


@pytest.mark.parametrize("method", [None, "newton-cg", "l-bfgs"])
def test_errors_name_a_gradient_or_hessian_of_wrong_shape(method):
    for call in [partial(fc.minimize, method=method)] if method else CALLS:
        for part, given, kind, words in BAD_PARTS:
            with pytest.raises(kind, match=f"^the objective's {words}"):
                call(BadlyShaped(**{part: lambda t, given=given: given}), np.ones(2))
        call(BadlyShaped(), np.ones(2))


def test_scalar_gradient_is_accepted_for_one_parameter():
    square = FunctionObjective(1, lambda t: t[0] ** 2, lambda t: 2 * t[0], lambda t: 2 * np.eye(1))
    assert fc.minimize(square, [1.0], "newton-cg").success
    assert fc.classify(square, [0.0]).kind == "minimum"


class ArrayValued:
    """A quadratic function whose value is an array of the given shape instead of a number."""

    n_params = 2

    def __init__(self, shape):
        self.shape = shape

    def value(self, theta):
        return np.full(self.shape, 0.5 * float(theta @ theta))

    def gradient(self, theta):
        return theta.copy()

    def hessian(self, theta):
        return np.eye(2)


def test_value_of_one_element_array_is_accepted_and_longer_ones_rejected():
    start = np.ones(2)
    for ob in (ArrayValued((1,)), ArrayValued((1, 1)), ArrayValued(())):
        assert fc.classify(ob, np.zeros(2)).kind == "minimum"
        for method in ("newton", "trust-region", "l-bfgs", "newton-cg"):
            found = fc.minimize(ob, start, method)
            assert found.success and isinstance(found.fun, float), found.message
        assert fc.find_critical_point(ob, start).fun == 0
        assert isinstance(fc.escape(ob, start).fun, float)
    for call in CALLS:
        with pytest.raises(TypeError, match=r"must be a number.*shape \(3,\)"):
            call(ArrayValued((3,)), np.zeros(2))


class InfiniteGradient(FunctionObjective):
    """An objective with a finite value and an infinite gradient."""

    def __init__(self):
        super().__init__(2, lambda x: 0.0, lambda x: np.array([np.inf, 0.0]), lambda x: np.eye(2))


def test_a_gradient_that_is_not_finite_raises():
    with pytest.raises(ValueError, match="the gradient at theta must be finite"):
        fc.classify(InfiniteGradient(), np.zeros(2))
    with pytest.raises(ValueError, match="the gradient at theta0 must be finite"):
        fc.find_critical_point(InfiniteGradient(), np.zeros(2))


class InPlaceObjective:
    """The function ``(||t||^2 - 2 t_0^2) / 2`` of t = theta - 1, whose methods named in `careless`
    modify their argument.
    """

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


def test_an_objective_that_modifies_theta_raises():
    """An objective that modifies theta raises ValueError, since later values would belong to
    another point and a saddle could be reported as a minimum.
    """
    for call in CALLS:
        for careless in ("value", "gradient", "hessian"):
            if call is fc.escape and careless == "gradient":
                continue  # `escape` does not call `gradient`
            theta = np.full(3, 1.5)
            with pytest.raises(ValueError, match="must not write into the theta"):
                call(InPlaceObjective({careless}), theta)
            assert np.all(theta == 1.5)


def test_complex_products_raise():
    A = np.diag(np.arange(1.0, 9.0))
    H = LinearOperator((8, 8), matvec=lambda v: (A @ v) * (1 + 1e-3j), dtype=float)
    for ask in (lambda H: fc.eigsh(H, 2), fc.inertia, lambda H: fc.trace(H, 4)):
        with pytest.raises(TypeError, match="must be real|must hold real numbers"):
            ask(H)


@pytest.mark.parametrize("method", ["trust-region", "newton-cg", "l-bfgs", "adam", "cubic"])
def test_a_gradient_buffer_that_is_reused_gives_the_same_results(method):
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
        ends.append(fc.minimize(ob, start, method, rng=0, max_iter=100))
    assert np.array_equal(ends[0].x, ends[1].x) and ends[0].message == ends[1].message


# --- unknown errors and bounds


class WithoutErrorBound(LinearOperator):
    """The matrix A as an operator whose products have no known error bound."""

    def __init__(self, A):
        super().__init__(A.dtype, A.shape)
        self.A = A

    def _matvec(self, v):
        return self.A @ v

    def rounding_bound(self, v):
        return np.inf


@pytest.mark.parametrize("diagonal", [(1.0, 2.0, 3.0), (0.0, 0.0, 0.0), (-1.0, 2.0, 3.0)])
def test_no_counts_are_claimed_without_a_bound_on_hessian_errors(diagonal):
    A = np.diag(diagonal)

    class Vague(QuadraticObjective):
        third_bound = QuadraticObjective.third_bound  # also valid for this Hessian

        def hessian(self, theta):
            return WithoutErrorBound(A)

    ob = Vague(A)
    said = fc.classify(ob, np.zeros(3))
    assert said.kind == "undecided" and said.rule == "no_error_bound"
    assert said.n_positive is said.n_negative is said.n_zero is None
    assert (
        said.evidence.n_negative_bounds[0]
        <= sum(x < 0 for x in diagonal)
        <= said.evidence.n_negative_bounds[1]
    )


def test_the_gradient_has_the_best_available_bound():
    g, error = gradient_and_error(BOWL, np.ones(3))
    assert np.array_equal(g, [1.0, 2.0, 3.0]) and np.isnan(error)
    said = nets.stating(gradient=BOWL.gradient, rounding_bound=lambda theta: 0.5)
    assert gradient_and_error(said, np.ones(3))[1] == 0.5
    vague = nets.stating(
        gradient=BOWL.gradient, precise_gradient=lambda theta: (np.ones(3), np.inf)
    )
    g, error = gradient_and_error(vague, np.ones(3))
    assert np.array_equal(g, [1.0, 2.0, 3.0]) and np.isnan(error)
    with pytest.raises(ValueError, match="NaN or infinity"):
        finite_gradient_and_error(
            nets.stating(
                gradient=lambda theta: np.full(3, np.nan),
                precise_gradient=lambda theta: (np.ones(3), np.inf),
            ),
            np.ones(3),
            None,
        )


def test_flat_directions_without_a_proof_have_no_bounds():
    flat = nets.stating(flat_directions=lambda theta: np.eye(3)[:, :1])
    found = symmetry_tangents(flat, np.zeros(3))
    assert np.array_equal(found.columns, np.eye(3)[:, :1])
    assert found.change == np.inf and found.error == np.inf
    assert symmetry_tangents(BOWL, np.zeros(3)).columns.shape == (3, 0)


def test_the_flat_ratio_is_at_most_one():
    """The ratio ``||Hg|| / (||H|| ||g||)`` is at most 1, and is 1 if g is the top eigenvector, even
    if the power steps that estimate ||H|| miss this vector.
    """
    n = 300
    values = np.linspace(0.9, 1.0, n)
    ob = QuadraticObjective(np.diag(values))
    said = fc.classify(ob, 1e3 * np.eye(n)[-1], gradient_tol=1e-9)
    assert 1 - 1e-12 <= said.evidence.gradient_flat_ratio <= 1


def test_bounds_on_negative_eigenvalues_hold_on_curved_orbits():
    """Away from critical points, where symmetry orbits have curvature of either sign, the bounds on
    the number of negative eigenvalues hold.
    """
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((8, 2)), rng.standard_normal((8, 2))
    model, wider = fc.MLP([2, 3, 2], "identity", bias=False), 0
    ob = fc.Objective(model, X, y, loss="mse")
    for seed in range(20):
        theta = fc.minimize(ob, model.init(rng=seed), "trust-region", max_iter=6, verdict=False).x
        said = fc.classify(ob, theta)
        values = np.linalg.eigvalsh(ob.hessian(theta).to_dense())
        low, high = said.evidence.n_negative_bounds
        if said.certified:  # the bounds are then those at the critical point nearby
            continue
        assert low <= (values < 1e-13).sum() and (values < -1e-13).sum() <= high, said
        wider += int((values < -1e-13).sum()) > said.n_negative
    assert wider > 0  # otherwise the counts alone would have been sufficient bounds


def test_one_class_alone_makes_every_point_degenerate():
    """With a single class the loss is 0 everywhere, so every point is degenerate, and the reason
    mentions no infimum at infinity.
    """
    X = np.random.default_rng(0).standard_normal((6, 2))
    ob = fc.Objective(fc.MLP([2, 1]), X, np.zeros(6, int), loss="cross_entropy")
    assert ob.certificates.ray_to_infimum(np.ones(3)) is None
    said = fc.classify(ob, np.ones(3))
    assert said.kind == "degenerate" and said.rule != "infimum_at_infinity"


def test_the_missing_minimum_is_explained_if_squares_of_weights_overflow():
    """The ray to the infimum of separable classes is found and explains that no minimum exists,
    also if the squares of theta overflow.
    """
    ob = fc.Objective(fc.MLP([2, 1]), np.eye(2), np.array([0.0, 1.0]), "binary_cross_entropy")
    for size in (1.0, 1e200):
        theta = np.array([-size, size, 0.0])
        ray = ob.certificates.ray_to_infimum(theta)
        assert np.linalg.norm(ray) == pytest.approx(1)
        assert "classified correctly" in ob.certificates.why_no_minimum(theta)


# --- numbers at the ends of the range


def test_newton_steps_from_nan_and_zero_matrices_are_empty():
    g = np.ones(3)
    assert dense_newton_mr_steps(np.full((3, 3), np.nan), g).vectors == []
    flat = dense_newton_mr_steps(np.zeros((3, 3)), g)
    assert flat.vectors == [] and flat.norm == 0
    steep = dense_newton_mr_steps(np.diag([1.0, 2.0, 3.0]), g)
    assert len(steep.vectors) > 0 and all(slope < 0 for slope in steep.slopes)


def test_a_step_to_a_gradient_whose_square_overflows_is_shortened():
    """A Newton-MR step to a point at which the square of the gradient overflows is shortened, also
    if the square of the acceptable gradient norm underflows.
    """
    steps = NewtonMRSteps([np.ones(2)], [-1.0], 1.0)
    for far in (1e200, np.inf):
        found = reduce_gradient_norm(
            lambda x, far=far: np.full(2, far if x[0] > 0.1 else 1e-42), np.zeros(2), 1e-40, steps
        )
        assert found is not None and 0 < found[0][0] <= 0.1 and found[1][0] == 1e-42


def test_a_krylov_space_of_a_zero_matrix_or_start_is_empty():
    space = new_krylov_space(3, np.dtype(float), 5)
    space.start(lambda v, out: out.fill(0), np.zeros(3))
    extend_krylov_space(space, 1e-3, 5, lambda: False)
    assert space.m == 0 and krylov_newton_mr_steps(space).norm == 0
    space.start(lambda v, out: out.fill(0), np.ones(3))
    extend_krylov_space(space, 1e-3, 5, lambda: False)
    assert krylov_newton_mr_steps(space).vectors == [] and krylov_newton_mr_steps(space).norm == 0


@pytest.mark.parametrize("method", ["follow", "newton-mr"])
def test_searches_reject_points_of_infinite_gradient(method):
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


@pytest.mark.parametrize("method", ["follow", "newton-mr"])
def test_a_critical_start_takes_no_iteration(method):
    ob = QuadraticObjective(np.diag([1.0, -2.0]))
    found = fc.find_critical_point(ob, np.zeros(2), method=method)
    assert found.success and np.array_equal(found.x, np.zeros(2)) and found.nit == 0


def test_the_newton_limit_is_none_if_steps_do_not_converge():
    bowl, at = QuadraticObjective(np.diag([1.0, 2.0])), np.array([1.0, 1.0])
    free = CurvatureCoordinates()
    assert follow_newton_steps(bowl, at, np.zeros(2), free)[0] is None, "no gradient, no step"
    none, _, spent = follow_newton_steps(bowl, at, bowl.gradient(at), free, most_products=0)
    assert none is None and spent == 0
    there, _, spent = follow_newton_steps(bowl, at, bowl.gradient(at), free)
    assert np.abs(there).max() <= 1e-12 and spent > 0
    root = FunctionObjective(
        1, lambda x: abs(x[0]) ** 1.5, lambda x: 1.5 * np.sign(x) * np.sqrt(abs(x)),
        lambda x: np.array([[0.75 / np.sqrt(abs(x[0]))]]),
    )  # fmt: skip
    away = follow_newton_steps(root, np.ones(1), np.full(1, 1.5), free)
    assert away[0] is None, "each step crosses to the other side and halves nothing"
    steep = FunctionObjective(
        1, lambda x: float(x[0]), lambda x: np.ones(1), lambda x: np.full((1, 1), 1e-310)
    )
    with np.errstate(all="ignore"):
        assert follow_newton_steps(steep, np.ones(1), np.ones(1), free)[0] is None
    quartic = FunctionObjective(
        1, lambda x: x[0] ** 20, lambda x: 20 * x**19, lambda x: 380 * np.diag(x**18)
    )
    slow = follow_newton_steps(quartic, np.ones(1), np.full(1, 20.0), free)[0]
    assert slow is None or abs(slow[0]) < 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    "scale, size",
    [(1e-300, 1e300), (1e-160, 1e155), (1.0, 1e155), (1e160, 1e-160), (1e160, 1.0), (1e300, 1.0)],
)
def test_numbers_whose_squares_overflow_give_a_result_or_value_error(scale, size):
    """At a saddle with curvature of any magnitude, from any distance, each call returns a result or
    raises ValueError with a message about what must be finite.
    """
    ob = QuadraticObjective(scale * np.diag([-1.0, 0.1, 0.4, 1.0]))
    theta = size * np.array([0.5, -1.0, 0.3, 2.0])
    calls = [fc.classify, fc.find_critical_point, fc.escape]
    methods = ("newton", "trust-region", "cubic", "newton-cg", "saddle-free-newton", "l-bfgs")
    calls += [partial(fc.minimize, method=name, max_iter=20) for name in methods]
    calls += [partial(fc.classify, dense_below=1, failure_probability=1e-3)]
    for call in calls:
        try:
            call(ob, theta)
        except ValueError as error:
            assert " must " in str(error) or "finite" in str(error)


def test_invalid_autoencoders_raise():
    for spectrum in ([1.0, 1.0], [2.0, 0.0], [1.0, 2.0], [np.nan, 1.0]):
        with pytest.raises(ValueError, match="distinct positive numbers, desc|finite numbers"):
            LinearAutoencoder(spectrum, 1)
    net = LinearAutoencoder([3.0, 2.0, 1.0], 2, rng=0)
    for wrong in ([1, 1], [1, 2, 3], [0], [4]):
        with pytest.raises(ValueError, match="at most 2 different ints from 1 to 3"):
            net.critical_point(wrong)
    for indices in ([], [1], [3, 1]):
        theta = net.critical_point(indices, rng=1)
        assert np.abs(net.objective.gradient(theta)).max() <= 1e-12
