"""Losses given by NumPy functions: built-in ones against formulas in long double at ordinary and
extreme outputs, and user-defined ones against kernels.
"""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
from scipy import sparse

import fastcurv as fc
from fastcurv import Loss
from fastcurv.certify import rounding_bound
from fastcurv.structure import given as losses
from fastcurv.structure.tables import LOSSES, loss_by_name, loss_spec

from .. import nets
from ..certify.longdouble import LD, in_long_double, user_loss_derivatives
from ..network.product_cases import assert_same_results

pytestmark = pytest.mark.by_day(share=1 / 2)

NAMES = [
    *losses.BUILT_IN_LOSSES,
    "quantile(0.9, 0.001)",
    "quantile(0.02, 7.0)",
    "pseudo_huber(0.01)",
]
every_name = pytest.mark.parametrize("name", NAMES)


def cross_entropy(z, y):
    """Return the loss of each sample and its first and second derivatives with respect to the
    outputs z, for a cross entropy written as a user-defined loss. Their shapes are (N,), (N, m) and
    (N, m, m).
    """
    u = z - z.max(axis=1, keepdims=True)
    p = np.exp(u) / np.exp(u).sum(axis=1, keepdims=True)
    at, label = np.arange(len(z)), y[:, 0].astype(int)
    first = p.copy()
    first[at, label] -= 1
    second = p[:, :, None] * (np.eye(z.shape[1], dtype=z.dtype) - p[:, None, :])
    return np.log(np.exp(u).sum(axis=1)) - u[at, label], first, second


def squares(z, y):
    r = z - y
    return (r * r).mean(axis=1), 2 * r / z.shape[1], np.full_like(r, 2 / z.shape[1])


def cauchy(z, y):
    r = z - y
    w = 1 / (1 + r * r / 2)
    return np.log1p(r * r / 2).sum(axis=1), r * w, (1 - r * r / 2) * w * w


def extremes(rng, name, N=400):
    """Return outputs of shape (N, d) and targets of shape (N, 2) over many orders of magnitude that
    suit the loss `name`, with some targets equal to the outputs and some outputs zero.
    """
    d = 4 if name == "gaussian_nll" else 2
    z = rng.standard_normal((N, d)) * 10.0 ** rng.uniform(-8, 2.3, (N, 1))
    y = rng.standard_normal((N, 2)) * 10.0 ** rng.uniform(-8, 6, (N, 1))
    y[::5] = z[::5, :2]
    z[::7] = 0
    if name == "poisson":
        y = np.round(np.abs(y))
    return z, np.abs(y) + 1e-9 if name == "gamma" else y


@in_long_double
@every_name
def test_errors_of_losses_are_within_their_stated_bounds(name, rng):
    """Errors of losses and their derivatives in float64, compared with long double, are within
    their stated bounds. Derivatives in long double agree with independent formulas.
    """
    loss, (z, y) = loss_by_name(name), extremes(rng, name)
    here, there = loss(z, y), loss(z.astype(LD), y)
    own = loss.error_bounds(z, y, here, np.finfo(float).eps)
    gaps = [np.abs(a - b).astype(float) for a, b in zip(here, there, strict=True)]
    fine = np.isfinite(own).all(axis=1)
    assert fine.mean() > 0.8
    assert (gaps[0] <= own.sum(axis=1))[fine].all()
    assert (gaps[1] <= own)[fine].all()
    off = own.max(axis=1)[:, None, None] if loss.coupled else own
    assert (gaps[2] <= off)[fine].all()
    own = loss.error_bounds(z, y, there, losses.LONG_DOUBLE_EPS)
    for j, other in enumerate(user_loss_derivatives(name, z.astype(LD), y.astype(LD)), start=1):
        off = 4 * (own.max(axis=1)[:, None, None] if there[j].ndim == 3 else own)
        gap = np.abs(there[j] - other)
        assert (gap <= off)[fine].all(), (name, j)


@every_name
@pytest.mark.parametrize("move", [1e-4, 0.1, 2.0])
def test_second_derivatives_change_by_no_more_than_the_third_allows(name, move, rng):
    """Between two points within `move` of z, second derivatives change, in the operator norm, by at
    most the distance times the bound on third derivatives.
    """
    loss, (z, y) = loss_by_name(name), extremes(rng, name)
    z, y = z / 30, y / (1 + np.abs(y).max())
    y = np.round(y * 9) if name == "poisson" else y + (name == "gamma")
    bound = loss.third_derivative_bounds(z, y, np.full((len(z), 1), move)).max(axis=1)
    for _ in range(20):
        ends = [z + rng.uniform(-move, move, z.shape) for _ in range(2)]
        change = np.subtract(*(loss(x, y)[2] for x in ends))
        length = np.linalg.norm(ends[1] - ends[0], axis=1)
        norm = np.linalg.norm(change, 2, (1, 2)) if loss.coupled else np.abs(change).max(axis=1)
        assert (norm <= bound * length * (1 + 1e-9) + 1e-9).all()


@every_name
def test_products_match_complex_steps(name, rng, dtype):
    """Values, gradients and Hessian products of the engine match complex steps of the reference
    with sample weights, for all samples at once and in chunks.
    """
    d = 4 if name == "gaussian_nll" else 2
    y = nets.targets(rng, name, 70, 2)
    for sizes in ([5, 9, d], [5, 40, 30, d], [6, d]):
        p = nets.draw(rng, sizes, "tanh", name, X=rng.standard_normal((70, sizes[0])), y=y,
                      weights=True, l2=0.01, dtype=dtype)  # fmt: skip
        v, t = p.direction(rng), p.theta.astype(float)
        ref = p.reference(y=p.ob.y)
        Hv = ref.hessian(t) @ v.astype(float)
        tolerance = 1e-12 if dtype == "float64" else 1e-4
        for ob in (p.ob, p.objective(memory=800_000)):
            gaps = (ob.gradient(p.theta) - ref.gradient(t)), (ob.hessian(p.theta) @ v - Hv)
            sizes_ = np.linalg.norm(ref.gradient(t)), np.linalg.norm(Hv)
            assert all(
                np.linalg.norm(gap) <= tolerance * size
                for gap, size in zip(gaps, sizes_, strict=True)
            )
            assert ob.value(p.theta) == pytest.approx(ref.value(t), rel=tolerance)


@in_long_double
@pytest.mark.parametrize("function", [squares, cauchy, cross_entropy])
def test_products_of_a_user_defined_loss_match_differences_in_long_double(function, rng):
    """Products of a user-defined loss match fourth-order differences of the reference's gradients
    in long double.
    """
    y = rng.integers(3, size=(40, 1)) if function is cross_entropy else rng.normal(size=(40, 3))
    p = nets.draw(rng, [4, 9, 3], "tanh", Loss(function), X=rng.normal(size=(40, 4)), y=y, l2=0.1)
    t, v, step = p.theta.astype(LD), p.direction(rng), LD(2) ** -13

    def gradient(k):
        return p.ref.value_and_gradient(t + k * step * v)[1]

    Hv = (8 * (gradient(1) - gradient(-1)) - (gradient(2) - gradient(-2))) / (12 * step)
    assert np.linalg.norm(p.ob.hessian(p.theta) @ v - Hv) <= 1e-12 * np.linalg.norm(Hv)


KINDS = {
    "dense": fc.Objective,
    "in chunks": partial(fc.Objective, memory=300_000),
    "sparse": lambda m, X, y, loss, **more: fc.Objective(m, sparse.csr_matrix(X), y, loss, **more),
    "blocks": partial(fc.StreamedObjective, memory=300_000),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_user_defined_cross_entropy_equals_the_built_in_one(kind, batch_norm, rng):
    """For a user-defined cross entropy, which couples outputs, all results equal those of the
    built-in one up to rounding.
    """
    if batch_norm and kind in ("sparse", "blocks"):
        return
    X, y = rng.standard_normal((50, 6)), rng.integers(3, size=50)
    m = fc.MLP([6, 9, 7, 3], "tanh", batch_norm=batch_norm)
    theta, V = m.init(rng=1), rng.standard_normal((m.n_params, 2))
    both = "cross_entropy", Loss(cross_entropy, lower_bound=0.0)
    theirs, ours = (KINDS[kind](m, X, y, loss, l2=0.01) for loss in both)
    assert ours.value(theta) == pytest.approx(theirs.value(theta), rel=1e-14)
    assert_same_results(ours, theirs, theta, V, 1e-13)


def test_a_user_defined_loss_with_coupled_outputs_has_the_built_in_gauss_newton_matrix(rng):
    """The Gauss-Newton matrix of a user-defined cross entropy has the trace and the largest
    eigenvalues of the built-in one up to rounding, and Gauss-Newton methods minimise both losses to
    1e-6.
    """
    X, y = rng.standard_normal((40, 4)), rng.integers(3, size=40)
    m = fc.MLP([4, 12, 3])
    theirs, ours = (fc.Objective(m, X, y, loss) for loss in ("cross_entropy", Loss(cross_entropy)))
    theta = m.init(rng=0)
    G, own = theirs.ggn(theta), ours.ggn(theta)
    assert float(fc.trace(own)) == pytest.approx(float(fc.trace(G)), rel=1e-12)
    assert fc.eigsh(own, 3, rng=0).values == pytest.approx(fc.eigsh(G, 3, rng=0).values, rel=1e-9)
    for method in ("levenberg-marquardt", "gauss-newton"):
        for ob in (theirs, ours):
            fitted = fc.minimize(
                ob, theta, method, fun_target=1e-6, gradient_tol=0.0, max_iter=500, verdict=False
            )
            assert fitted.fun <= 1e-6, fitted.message


def problem(loss, l2=0.05):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 6)), rng.integers(3, size=50)
    return fc.Objective(fc.MLP([6, 4, 3], "tanh"), X, y, loss, l2=l2)


@pytest.mark.parametrize("name", ["third_bound", "error_ulps", "first_bound", "bend"])
@pytest.mark.parametrize("kind", [Loss, fc.Activation])
def test_bounds_of_user_defined_functions_are_refused(kind, name):
    with pytest.raises(TypeError, match=f"^{name} must be left out, got 1.0. Verdicts on"):
        kind(rowwise_tanh, **{name: 1.0})


@pytest.mark.parametrize("phi", ["tanh", ["tanh", "own"], "own"], ids=str)
@pytest.mark.parametrize("loss", ["mse", Loss(squares, lower_bound=0.0)], ids=str)
@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_verdicts_on_user_defined_functions_are_measured(phi, loss, dtype):
    """With a loss or an activation of one's own, a minimum is found and not certified, and neither
    are the points around it.
    """
    names = [fc.Activation(rowwise_tanh) if name == "own" else name for name in np.ravel(phi)]
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 4)), rng.standard_normal((60, 2))
    model = fc.MLP([4, *[3] * len(names), 2], names, dtype=dtype)
    ob = fc.Objective(model, X, y, loss, l2=0.1)
    end = fc.minimize(ob, model.init(rng=0), rng=0)
    proved = phi == "tanh" and loss == "mse"
    assert end.kind == "minimum" and end.report.certified == proved
    for theta in () if proved else (end.x, 0 * end.x, model.init(rng=0)):
        H = ob.hessian(theta)
        assert rounding_bound(ob, theta) is rounding_bound(H, theta) is None
        for at in (fc.classify(ob, theta), fc.classify(ob, theta, dense_below=0)):
            for point in (at, at.nearest_verdict) if at.nearest_verdict else (at,):
                assert not point.certified
    assert proved or fc.classify(ob, end.x).evidence.missing_hypothesis == "objective"


@pytest.mark.parametrize(
    "phi", ["relu", ["relu", "tanh"], ["own", "relu"], ["relu", "own"]], ids=str
)
@pytest.mark.parametrize("kind", ["dense", "blocks"])
def test_kinks_are_counted_for_losses_without_bounds(phi, kind, rng):
    """For a loss without bounds, kinks are counted at zero weights, and the point is not called a
    minimum. There the Hessian is positive on one side of the kinks and the loss decreases on the
    other.
    """
    names = [fc.Activation(rowwise_tanh) if name == "own" else name for name in np.ravel(phi)]
    X, y = rng.standard_normal((60, 4)), np.abs(rng.standard_normal(60))
    ob = KINDS[kind](fc.MLP([4, *[8] * len(names), 1], names), X, y, Loss(squares), l2=0.01)
    theta = np.zeros(ob.n_params)
    theta[-1] = y.mean() / 1.01
    at = fc.classify(ob, theta, gradient_tol=1e-10)
    assert at.kind != "minimum" and at.evidence.n_kinks >= 480
    away = ob.model.init(rng=0)
    assert fc.classify(ob, away).evidence.n_kinks == 0


def test_the_gauss_newton_matrix_of_a_nonconvex_loss_raises(rng):
    X, y = rng.standard_normal((30, 2)), 9 * rng.standard_normal((30, 1))
    for kind in KINDS.values():
        ob = kind(fc.MLP([2, 3, 1]), X, y, Loss(cauchy))
        with pytest.raises(ValueError, match="a second derivative of .* for some rows"):
            ob.ggn(ob.model.init(rng=0))
        assert fc.minimize(ob, ob.model.init(rng=0), max_iter=5, verdict=False).nit > 0


def test_errors_in_a_loss_propagate_and_the_objective_stays_usable():
    calls = []

    def brittle(z, y):
        calls.append(len(z))
        if np.abs(z).max() > 50:
            raise KeyError("too far")
        return cross_entropy(z, y)

    ob = problem(Loss(brittle))
    theta = ob.model.init(rng=0)
    before = ob.value(theta)
    for _ in range(2):
        with pytest.raises(KeyError, match="too far"):
            ob.value(1000 * theta)
    calls.clear()
    assert ob.value(theta) == before
    H = ob.hessian(theta)
    for _ in range(5):
        H @ theta
    assert calls == [50]  # one call for each theta and block of rows


def alternating():
    """Return a loss whose second derivative has the axes (N, d, d) and (N, d) in turn."""
    n_calls = 0

    def loss(z, y):
        nonlocal n_calls
        n_calls += 1
        value, first, second = cross_entropy(z, y)
        return value, first, second if n_calls % 2 else second.sum(axis=2)

    return loss


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize(
    "function, words",
    [
        (lambda z, y: (1, 2), "must return .*got a tuple"),
        (lambda z, y: (z.sum(), z, z), r"return value as .*, got shape \(\)"),
        (lambda z, y: (z[:, 0], z[:, :1], z), "return first as .*, got shape"),
        (lambda z, y: (z[:, 0], z, z[:, 0]), "return second as .*, got shape"),
        (lambda z, y: (z[:, 0].astype(int), z, z), "dtype int64"),
        (alternating(), "return second with the same number of axes in every call, got 2 after 3"),
    ],
)
def test_shapes_of_a_loss_are_checked_when_the_objective_is_created(function, words):
    with pytest.raises((TypeError, ValueError), match=words):
        problem(Loss(function))


def test_losses_couple_at_most_64_outputs(rng):
    X, y = rng.standard_normal((4, 2)), rng.integers(2, size=(4, 65)).astype(float)
    most = fc.Objective(fc.MLP([2, 64]), X, y[:, :64], Loss(cross_entropy))
    assert np.isfinite(most.value(np.ones(3 * 64)))
    with pytest.raises(ValueError, match="must couple at most 64 outputs .*, got 65"):
        fc.Objective(fc.MLP([2, 65]), X, y, Loss(cross_entropy))


@pytest.mark.parametrize("bound", [np.inf, -np.inf, np.nan])
def test_a_lower_bound_of_a_loss_is_finite_or_unknown(bound):
    with pytest.raises(ValueError, match="lower_bound must be a finite number, or None if no "):
        Loss(cauchy, lower_bound=bound)


def scaled_cauchy(value=1.0, first=1.0, second=1.0):
    """Return Cauchy's loss as a function of (z, y) whose value, first and second derivatives are
    multiplied by the given factors.
    """
    return lambda z, y: tuple(x * c for x, c in zip(cauchy(z, y), (value, first, second)))


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize(
    "loss, words",
    [
        (Loss(scaled_cauchy(first=0.5)), "first of .* must be the derivative of value"),
        (Loss(scaled_cauchy(second=1.1)), "second of .* must be the derivative of first"),
        (Loss(lambda z, y: [part + 0j for part in cauchy(z, y)]), "must return .*got a list"),
        (Loss(lambda z, y: (*cauchy(z, y)[:2], z * 1j)), "dtype complex128"),
        (Loss(lambda z, y: cauchy(z - z.mean(axis=0), y)), "for the same rows|derivative"),
        (Loss(cauchy, lower_bound=2.0), ">= lower_bound=2"),
    ],
)
def test_losses_and_bounds_are_checked_on_samples(loss, words):
    """If a user-defined loss has wrong derivatives, bounds or results, creating an objective raises
    an error that names the wrong part.
    """
    with pytest.raises((TypeError, ValueError), match=words):
        problem(loss)


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize(
    "loss, y, words",
    [
        ("poisson", [-1.0], "must hold numbers >= 0"),
        ("gamma", [0.0], "must hold numbers > 0"),
        ("quantile(1.5)", [0.0], "between 0 and 1"),
        ("quantile(a)", [0.0], "must be one of"),
        ("huber", [0.0], "Use 'pseudo_huber'"),
        ("gaussian_nll", [0.0], "must have an even number"),
    ],
)
def test_losses_that_do_not_suit_the_targets_raise(loss, y, words):
    with pytest.raises(ValueError, match=words):
        fc.Objective(fc.MLP([1, 1]), [[1.0]], y, loss)
    for bad in ("abc", None, [0.5], True, 1j, 2, np.nan):
        with pytest.raises(
            (TypeError, ValueError), match="^level must be a number between.*got .*"
        ):
            Loss.quantile(bad)
    for bad in ("abc", None, [0.5], True, 0, np.inf):
        with pytest.raises((TypeError, ValueError), match="^delta must be a finite number.*got .*"):
            Loss.pseudo_huber(bad)
        with pytest.raises((TypeError, ValueError), match="^width must be a finite number.*got .*"):
            Loss.quantile(0.5, bad)
    for bad in (5, None, "mse"):
        with pytest.raises(TypeError, match="must be function"):
            Loss(bad)


def test_losses_have_names_and_copies():
    assert LOSSES["poisson"].given is loss_by_name("poisson")
    for name in NAMES:
        one = loss_by_name(name)
        assert pickle.loads(pickle.dumps(one)) is one and copy.deepcopy(one) is one
        again = loss_by_name(str(one))
        assert again is one or (again.name == one.name and name in losses.BUILT_IN_LOSSES)
    for one in (Loss.quantile(), Loss.quantile(0.9), Loss.pseudo_huber(), Loss.pseudo_huber(2.0)):
        assert isinstance(one, Loss) and loss_by_name(str(one)) is one
        assert pickle.loads(pickle.dumps(one)) is one and copy.deepcopy(one) is one
        assert fc.Objective(fc.MLP([1, 1]), [[1.0]], [[1.0]], str(one)).loss is one
    for unknown in ("cubic(3)", "quantiles(0.9)", "cubic"):
        with pytest.raises(KeyError, match="cubic|quantiles"):
            loss_by_name(unknown)
    own = pickle.loads(pickle.dumps(Loss(squares, lower_bound=0.0)))
    assert (own.function, own.lower_bound) == (squares, 0.0)
    ob = problem(Loss(cross_entropy))
    again = pickle.loads(pickle.dumps(ob))
    theta = ob.model.init(rng=0)
    assert again.value(theta) == ob.value(theta) == ob.batch(slice(None)).value(theta)
    assert repr(Loss.quantile(0.9)) == "Loss.quantile(0.9, 0.05)" and "cross_entropy" in repr(ob)


def test_a_loss_needs_known_coupling_before_its_kernels():
    new = Loss(cross_entropy)
    with pytest.raises(RuntimeError, match="must be called before the shape"):
        new.coupled  # noqa: B018
    with pytest.raises(RuntimeError, match="must be called before the shape"):
        loss_spec(new).per_entry  # noqa: B018
    ob = problem(new)
    assert new.coupled and not loss_spec(new).per_entry and pickle.loads(pickle.dumps(new)).coupled
    state = ob.__getstate__()  # a state that was saved before the coupling was known
    state["loss"] = Loss(cross_entropy)
    other = object.__new__(fc.Objective)
    other.__setstate__(state)
    theta = ob.model.init(rng=0)
    assert np.array_equal(other.hessian(theta) @ theta, ob.hessian(theta) @ theta)


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize("part", [1, 2])
@pytest.mark.parametrize("form", ["axes", "rows", "dtype", "order"])
def test_callbacks_that_return_another_form_raise(part, form):
    """If a callback returns an array of another shape, dtype or order, an error is raised, since
    the numbers would be copied to wrong places.
    """
    loss = Loss(cross_entropy)
    ob = problem(loss)
    change = {
        "axes": lambda x: x[..., None],
        "rows": lambda x: x[:-1],
        "dtype": lambda x: x.astype("float32"),
        "order": np.asfortranarray,
    }[form]

    def weighted(*how):
        found = list(Loss.weighted_derivatives(loss, *how))
        found[part] = change(found[part])
        return tuple(found)

    vars(loss)["weighted_derivatives"] = weighted
    with pytest.raises(ValueError, match="^a callback must return an array of shape"):
        ob.value(ob.model.init(rng=0))


def rowwise_tanh(z):
    """Return tanh and its first and second derivatives at z, written as a user-defined
    activation.
    """
    a = np.tanh(z)
    return a, 1 - a * a, -2 * a * (1 - a * a)


@pytest.mark.parametrize("kind", ["dense", "blocks"])
def test_all_zero_poisson_counts_exclude_a_minimum(kind):
    """If all counts for an output are 0, the Poisson loss has no minimum, because it decreases
    without end along the bias of that output. The exceptions are an l2 penalty and a count above 0
    on a sample of positive weight.
    """
    rng = np.random.default_rng(0)
    X, y, m = rng.standard_normal((30, 2)), np.zeros((30, 2)), fc.MLP([2, 3, 2], "tanh")
    y[:, 1] = 1 + rng.poisson(2.0, 30)
    theta = m.init(rng=0)
    ob = KINDS[kind](m, X, y, "poisson")
    ray = ob.certificates.ray_to_infimum(theta)
    falls = [ob.value(theta + t * ray) for t in (0, 1, 10, 100)]
    assert np.all(np.diff(falls) < 0) and np.count_nonzero(ray) == 1
    found = fc.minimize(ob, theta, rng=0, max_iter=400)
    assert not found.success and found.notes[-2].key == "no_minimum"
    assert KINDS[kind](m, X, y, "poisson", l2=0.1).certificates.ray_to_infimum(theta) is None
    y[3, 0] = 1
    weight = np.where(np.arange(30) == 3, 0.0, 1.0)
    for w, expected in ((None, True), (weight, False)):
        ob = KINDS[kind](m, X, y, "poisson", sample_weight=w)
        assert (ob.certificates.ray_to_infimum(theta) is None) == expected
