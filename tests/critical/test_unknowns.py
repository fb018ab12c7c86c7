"""Verdicts and their parts where something is unknown, empty or without end."""

from dataclasses import replace
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import scipy.sparse.linalg

import fastcurv as fc
from fastcurv.certify.certificates import Certificates
from fastcurv.common.linalg import cholesky_floor
from fastcurv.common.protocols import Certificate
from fastcurv.critical.decide import Decision, Evidence, Nearness, Reason, Spectrum
from fastcurv.critical.dense import definite, inverse
from fastcurv.critical.evidence import annihilated, curvature_floor, offered, tangents, third_bound
from fastcurv.critical.nearness import (
    Coordinates,
    best_gradient,
    curvatures,
    gradient_and_error,
    newton_limit,
)
from fastcurv.critical.report import Words, noun, reason
from fastcurv.testing import FunctionObjective, QuadraticObjective
from tests import nets

BOWL = QuadraticObjective(np.diag([1.0, 2.0, 3.0]))


class Unbounded(scipy.sparse.linalg.LinearOperator):
    """A matrix of which nobody knows what its products are off by."""

    def __init__(self, A):
        super().__init__(A.dtype, A.shape)
        self.A = A

    def _matvec(self, v):
        return self.A @ v

    def column_bounds(self):
        return np.full(len(self.A), np.inf)


@pytest.mark.parametrize(
    "diagonal, kind",
    [
        ((1.0, 2.0, 3.0), "undecided"),
        ((0.0, 0.0, 0.0), "undecided"),
        ((-1.0, 2.0, 3.0), "saddle"),  # by two vectors, whose own products are bounded
    ],
)
def test_an_error_without_a_bound_makes_no_eigenvalue_zero(diagonal, kind):
    A = np.diag(diagonal)
    ob = QuadraticObjective(A)
    ob.hessian = lambda theta: Unbounded(A)
    said = fc.classify(ob, np.zeros(3))
    assert said.kind == kind and ("nothing bounds" in said.reason) == (kind == "undecided")
    assert said.n_positive is said.n_negative is said.n_zero is None
    assert said.n_negative_bounds[0] <= sum(x < 0 for x in diagonal) <= said.n_negative_bounds[1]


class Infinite(FunctionObjective):
    """A value that is finite, a gradient that is not."""

    def __init__(self):
        super().__init__(2, lambda x: 0.0, lambda x: np.array([np.inf, 0.0]), lambda x: np.eye(2))


def test_a_gradient_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="the gradient at theta holds NaN or infinity"):
        fc.classify(Infinite(), np.zeros(2))
    with pytest.raises(ValueError, match="the gradient at theta0 holds NaN or infinity"):
        fc.find_critical_point(Infinite(), np.zeros(2))


def test_a_gradient_comes_with_the_best_bound_there_is():
    g, error = gradient_and_error(BOWL, np.ones(3))
    assert np.array_equal(g, [1.0, 2.0, 3.0]) and np.isnan(error)
    said = SimpleNamespace(gradient=BOWL.gradient, rounding_bound=lambda theta: 0.5)
    assert gradient_and_error(said, np.ones(3))[1] == 0.5
    vague = SimpleNamespace(
        gradient=BOWL.gradient, precise_gradient=lambda theta: (np.ones(3), np.inf)
    )
    g, error = gradient_and_error(vague, np.ones(3))
    assert np.array_equal(g, [1.0, 2.0, 3.0]) and np.isnan(error)
    with pytest.raises(ValueError, match="NaN or infinity"):
        best_gradient(
            SimpleNamespace(
                gradient=lambda theta: np.full(3, np.nan),
                precise_gradient=lambda theta: (np.ones(3), np.inf),
            ),
            np.ones(3),
            None,
        )


def test_curvature_where_nothing_is_asked_or_theta_ends():
    assert curvatures(BOWL, np.zeros(3), np.zeros((3, 0))).shape == (0,)
    assert np.isnan(curvatures(BOWL, np.full(3, np.inf), np.eye(3))).all()
    assert np.array_equal(curvatures(BOWL, np.ones(3), np.eye(3)), [1.0, 2.0, 3.0])


def test_what_an_objective_proves_itself_goes_before_its_certificates():
    """In a subclass and in a wrapper; what neither has claims nothing."""

    class Floorless(fc.Objective):
        def curvature_floor(self, theta):
            return -np.inf

    class Bounded(nets.Around):
        kinks = None  # not offered

        def __init__(self, ob):
            super().__init__(ob)
            self.third_bound = lambda theta, radius: 7.0

    X, y = np.array([[1.0], [2.0]]), np.array([[1.0], [1.0]])
    plain, floorless = (
        kind(fc.MLP([1, 1]), X, y, loss="mse", l2=0.5) for kind in (fc.Objective, Floorless)
    )
    theta = np.ones(2)
    assert curvature_floor(plain, theta) > 0 and curvature_floor(floorless, theta) == -np.inf
    assert third_bound(plain, theta, 1.0) == 0 and third_bound(Bounded(plain), theta, 1.0) == 7.0
    assert curvature_floor(Bounded(plain), theta) == curvature_floor(plain, theta)
    assert offered(Bounded(plain), "kinks", "nothing") == "nothing"
    bare = SimpleNamespace(n_params=2)
    assert offered(BOWL, "orbits") is None and third_bound(bare, theta, 1.0) == np.inf
    assert offered(plain, "keeps_theta") and not offered(floorless, "keeps_theta")


@pytest.mark.parametrize("power", [1, 2])
def test_nothing_is_claimed_of_the_loss_that_a_subclass_replaces(power, dtype):
    """A linear term, which leaves the Hessian, and a quadratic one: where the gradient is not 0
    nothing is critical, and `minimize` goes to where it is.
    """

    class Pulled(fc.Objective):
        def value(self, theta):
            return super().value(theta) + float(np.sum((theta.astype(float) + 1) ** power))

        def value_and_gradient(self, theta):  # which `gradient` asks
            g = super().value_and_gradient(theta)[1] + power * (theta + 1) ** (power - 1)
            return self.value(theta), g

        if power == 2:

            def hessian(self, theta):
                return super().hessian(theta).shift(2.0)

    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 4)), rng.integers(0, 3, 60)
    plain, pulled = (
        kind(fc.MLP([4, 3], dtype=dtype), X, y, l2=1.0) for kind in (fc.Objective, Pulled)
    )
    theta = fc.minimize(plain, plain.model.init(seed=0)).x
    assert fc.classify(plain, theta).certified and np.linalg.norm(pulled.gradient(theta)) > 0.5
    point = fc.classify(pulled, theta)
    assert point.kind == "not_critical" and not point.certified
    found = fc.minimize(pulled, theta)
    assert np.linalg.norm(pulled.gradient(found.x)) < 1e-4
    again = fc.classify(pulled, found.x)
    assert again.kind in ("minimum", "undecided") and not again.certified
    assert found.fun == pytest.approx(pulled.value(found.x), rel=1e-6)


@pytest.mark.parametrize("disowned", [False, True])
def test_nothing_is_claimed_of_the_loss_that_a_wrapper_changes(dtype, disowned):
    """Proofs that it hands on, and the gradient that its operators hold, are of the loss within."""

    class Pulled(nets.Around):
        if disowned:
            certificates = rounding_bound = None

        def value(self, theta):
            return self.ob.value(theta) + float(np.sum(theta.astype(float) + 1))

        def gradient(self, theta):
            return self.ob.gradient(theta) + 1

    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 4)), rng.integers(0, 3, 60)
    ob = fc.Objective(fc.MLP([4, 3], dtype=dtype), X, y, l2=1.0)
    theta = fc.minimize(ob, ob.model.init(seed=0)).x
    point = fc.classify(Pulled(ob), theta)
    assert fc.classify(ob, theta).certified and point.kind == "not_critical"
    assert point.gradient_norm == pytest.approx(np.sqrt(theta.size), rel=1e-3)
    for method in ("auto", "lm", "trust-region", "newton-cg", "l-bfgs", "gauss-newton"):
        found = fc.minimize(Pulled(ob), theta, method)
        assert found.fun == pytest.approx(Pulled(ob).value(found.x), rel=1e-6)
        assert np.linalg.norm(Pulled(ob).gradient(found.x)) < 1e-3
        assert found.report is None or not found.report.certified


def test_the_loss_is_that_which_answers():
    """However it came to replace the one of `fc.Objective`: by a subclass in part or by a mixin, by
    a wrapper within another or one that dispatches, by attributes of the object.
    """
    X = np.linspace(-1, 1, 20)[:, None]
    given = fc.MLP([1, 3, 1]), X, np.sin(2 * X), "mse", 1e-2
    inner = fc.Objective(*given)

    class Parts:
        def value(self, theta):
            return inner.value(theta) + 0.5 * float(np.sum((theta - 1) ** 2))

        def gradient(self, theta):
            return inner.gradient(theta) + theta - 1

        def hessian(self, theta):
            return inner.hessian(theta).shift(1.0)

        def ggn(self, theta):
            return inner.ggn(theta).shift(1.0)

    class Changed(Parts, nets.Around):
        pass

    class Mixed(Parts, fc.Objective):
        pass

    class Dispatching(nets.Around):
        def __getattr__(self, name):
            return getattr(parts if hasattr(Parts, name) else self.ob, name)

    parts, patched = Parts(), fc.Objective(*given)
    for name in ("value", "gradient", "hessian", "ggn"):
        setattr(patched, name, getattr(parts, name))
    start, at = inner.model.init(seed=0), fc.minimize(inner, inner.model.init(seed=0)).x
    around = nets.Around
    kinds = [Mixed(*given), Changed(inner), around(Changed(inner)), Changed(around(inner))]
    for ob in (*kinds, around(kinds[0]), Dispatching(inner), patched):
        for method in ("auto", "lm", "trust-region", "newton-cg", "l-bfgs", "gauss-newton"):
            found = fc.minimize(ob, start, method)
            assert found.fun == pytest.approx(parts.value(found.x), rel=1e-12)
            assert np.linalg.norm(parts.gradient(found.x)) < 1e-5
            assert found.report is None or not found.report.certified
        point = fc.classify(ob, at)
        assert point.kind == "not_critical" and not point.certified
        with pytest.raises(ValueError, match="no rows"):
            fc.minimize(ob, start, "adam", batch_size=5)
    assert fc.classify(around(inner), at).certified == fc.classify(inner, at).certified


def test_a_wrapper_that_only_looks_on_may_say_so():
    class Watching(nets.Around):
        asked = 0
        certificates = property(lambda self: self.ob.certificates)

        def value_and_gradient(self, theta):
            self.asked += 1
            return self.ob.value_and_gradient(theta)

    X = np.linspace(-1, 1, 12)[:, None]
    ob = Watching(fc.Objective(fc.MLP([1, 2, 1]), X, X**2, "mse", l2=0.1))
    found = fc.minimize(ob, ob.model.init(seed=0), "l-bfgs")
    assert ob.asked > 5 and found.kind == "minimum" and found.report.certified


def test_every_name_that_is_asked_for_is_one_of_certificates():
    assert set(get_args(Certificate)) <= set(dir(Certificates))


def test_flat_directions_without_a_proof_count_as_symmetries_of_no_known_reach():
    flat = SimpleNamespace(flat_directions=lambda theta: np.eye(3)[:, :1])
    found = tangents(flat, np.zeros(3))
    assert np.array_equal(found.columns, np.eye(3)[:, :1])
    assert found.change == np.inf and found.error == np.inf
    assert tangents(BOWL, np.zeros(3)).columns.shape == (3, 0)


def test_what_a_matrix_annihilates():
    A = np.diag([0.0, 1e-9, 1.0, 2.0])
    Q = np.eye(4)[:, :3]
    kept = annihilated(A @ Q, Q, 1e-8)
    assert kept.shape == (4, 2) and np.abs(A @ kept).max() <= 1e-9
    assert np.allclose(kept.T @ kept, np.eye(2), atol=1e-15)
    assert annihilated(A @ Q[:, :0], Q[:, :0], 1e-8).shape == (4, 0)


def test_a_walk_ends_where_a_step_leaves_the_numbers_or_never_settles():
    steep = FunctionObjective(
        1, lambda x: float(x[0]), lambda x: np.ones(1), lambda x: np.full((1, 1), 1e-310)
    )
    with np.errstate(all="ignore"):
        assert newton_limit(steep, np.ones(1), np.ones(1), Coordinates())[0] is None
    quartic = FunctionObjective(
        1, lambda x: x[0] ** 20, lambda x: 20 * x**19, lambda x: 380 * np.diag(x**18)
    )
    slow = newton_limit(quartic, np.ones(1), np.full(1, 20.0), Coordinates())[0]
    assert slow is None or abs(slow[0]) < 1


def test_factors_of_what_is_not_definite():
    A = np.diag([1.0, 2.0, 4.0])
    assert np.allclose(inverse(A)(np.ones(3)), [1.0, 0.5, 0.25], rtol=1e-14)
    assert inverse(np.diag([1.0, -1.0, 1.0])) is None
    assert 0.5 * (1 - 1e-12) <= cholesky_floor(A.copy(), 0.5) <= 0.5
    assert all(cholesky_floor(A.copy(), s) == 0 for s in (1.5, -1.0, 0.0, np.nan))
    for norm in (1.0, np.inf):
        assert definite(SimpleNamespace(A=np.diag([1.0, -1.0]), norm=norm)) is None


ASK = SimpleNamespace(
    ob=SimpleNamespace(l2=0.0), theta=np.ones(4), gradient_tol=None,
    curvature_tol=1e-4, failure_probability=None, max_products=9, max_time=None,
)  # fmt: skip
NEAR = Nearness(gradient_norm=1e-9, gradient_tol=1e-6, decrement=1e-12, threshold=1e-8)
SEEN = Spectrum(low=-1e-9, high=2.0, weakest_error=1e-7, n_negative_bounds=(1, 4))


def sentence(because, near=NEAR, **seen):
    found = Evidence(gradient=near, spectrum=replace(SEEN, **seen), n_products=40)
    return reason(ASK, found, Decision("undecided", False, because))


def test_sentences_for_what_hardly_happens():
    assert "H is zero as far as it was looked at" in sentence(Reason.FLAT)
    assert "only, smaller than the error of the products" in sentence(Reason.NOTHING)
    over = replace(NEAR, gradient_norm=0.0, gradient_tol=0.0)
    assert sentence(Reason.FAR, over) == "Not critical: the value at theta is not finite."
    loose = sentence(Reason.LOOSE, risk=1e-3)
    assert "an eigenvalue is zero within 1e-07" in loose and "risk of 0.001" in loose


@pytest.mark.parametrize("because", Reason)
@pytest.mark.parametrize("inertia", [{}, {"n_positive": 3, "n_negative": 1, "n_zero": 0}])
def test_every_sentence_has_all_its_words(because, inertia):
    """Whatever is found: no name in braces is left, or unknown."""
    told = sentence(because, **inertia)
    assert told[0].isupper() and told.endswith(".") and not set("{}") & set(told)


def test_where_the_claims_point_lies_in_words():
    words = {
        0.0: "at theta exactly",
        1e-120: "at theta, nearer than any number here can tell",
        1e-16: "within 1e-16 of theta (its last digits)",
        1e-9: "within 1e-09 of theta",
    }
    for radius, place in words.items():
        outcome = Decision("minimum", True, Reason.THEOREM, radius)
        assert Words(ASK, Evidence(), outcome).place == place


def test_the_flat_ratio_is_a_share():
    """||Hg|| / (||H|| ||g||) is 1 along the top eigenvector, which power steps from a start beside
    it miss, and never more.
    """
    n = 300
    values = np.linspace(0.9, 1.0, n)
    ob = QuadraticObjective(np.diag(values))
    said = fc.classify(ob, 1e3 * np.eye(n)[-1], gradient_tol=1e-9)
    assert 1 - 1e-12 <= said.gradient_flat_ratio <= 1


def test_bounds_on_negative_eigenvalues_hold_where_orbits_are_bent():
    """Off a critical point the orbits of a symmetry carry curvature, of either sign."""
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((8, 2)), rng.standard_normal((8, 2))
    model, wider = fc.MLP([2, 3, 2], "identity", bias=False), 0
    ob = fc.Objective(model, X, y, loss="mse")
    for seed in range(20):
        theta = fc.minimize(ob, model.init(seed=seed), "trust-region", max_iter=6, verdict=False).x
        said = fc.classify(ob, theta)
        values = np.linalg.eigvalsh(ob.hessian(theta).to_dense())
        low, high = said.n_negative_bounds
        if said.certified:  # then they speak of the point nearby
            continue
        assert low <= (values < 1e-13).sum() and (values < -1e-13).sum() <= high, said
        wider += int((values < -1e-13).sum()) > said.n_negative
    assert wider > 0  # by these the counts alone would have been passed


def test_what_newton_leads_to_is_said_in_words():
    bowl = fc.classify(BOWL, np.zeros(3))
    assert noun(bowl) == "a certified minimum"
    for kind, words in (
        ("saddle", "a saddle"),
        ("degenerate", "a degenerate point"),
        ("undecided", "a point that stays undecided"),
    ):
        assert noun(replace(bowl, kind=kind, certified=False)) == words


def test_of_one_class_nothing_is_to_be_learnt():
    """The loss is 0 everywhere: no infimum at infinity, and nothing is lower anywhere."""
    X = np.random.default_rng(0).standard_normal((6, 2))
    ob = fc.Objective(fc.MLP([2, 1]), X, np.zeros(6, int), loss="cross_entropy")
    assert ob.certificates.ray_to_infimum(np.ones(3)) is None
    said = fc.classify(ob, np.ones(3))
    assert said.kind == "degenerate" and "infinity" not in said.reason


def test_no_minimum_is_explained_for_weights_whose_squares_are_none():
    """Far out along the ray too, where the length of theta overflows."""
    ob = fc.Objective(fc.MLP([2, 1]), np.eye(2), np.array([0.0, 1.0]), "binary_cross_entropy")
    for size in (1.0, 1e200):
        theta = np.array([-size, size, 0.0])
        ray = ob.certificates.ray_to_infimum(theta)
        assert np.linalg.norm(ray) == pytest.approx(1)
        assert "classified rightly" in ob.certificates.why_no_minimum(theta)
