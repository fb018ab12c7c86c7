"""Losses and activations given by NumPy functions: built-in ones against formulas in long double at
ordinary and extreme outputs, and user-defined ones against complex steps and kernels.
"""

import copy
import os
import pickle
import signal
from functools import partial

import numpy as np
import pytest
from scipy import sparse

import fastcurv as fc
from fastcurv import Activation, Loss
from fastcurv.certify import rounding_bound
from fastcurv.structure import given as losses
from fastcurv.structure.tables import LOSSES, activation_spec, loss_by_name
from fastcurv.structure.user_functions import check_derivatives

from .. import nets
from ..certify.longdouble import LD, in_long_double, user_loss_derivatives
from ..network.product_cases import assert_same_results
from ..plans import least_memory

pytestmark = pytest.mark.by_day(share=1 / 2)

NAMES = [
    *losses.BUILT_IN_LOSSES,
    "quantile(0.9, 0.001)",
    "quantile(0.02, 7.0)",
    "pseudo_huber(0.01)",
]

every_name = pytest.mark.parametrize("name", NAMES)

TANH = nets.OWN["hyperbolic"]


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


KINDS = {
    "dense": fc.Objective,
    "in chunks": partial(fc.Objective, memory=300_000),
    "sparse": lambda m, X, y, loss, **more: fc.Objective(m, sparse.csr_matrix(X), y, loss, **more),
    "blocks": partial(fc.StreamedObjective, block_rows=20),
}


def problem(loss, phi="tanh", l2=0.05):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 6)), rng.integers(3, size=50)
    return fc.Objective(fc.MLP([6, 4, 3], phi), X, y, loss, l2=l2)


# --- derivatives


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


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize("name", [*NAMES, *nets.ACTIVATIONS])
def test_derivatives_of_built_in_functions_match_difference_quotients(name, rng):
    """A built-in function passes the checks of user-defined ones."""

    def phi(z):
        a, p, q, _ = activation_spec(name).derivatives(z)
        return a, np.ones_like(z) if p is None else p, np.zeros_like(z) if q is None else q

    if name in nets.ACTIVATIONS:
        Activation(phi)
        return
    z, v = rng.standard_normal((2, 40, 4))
    y = 1 + np.abs(rng.standard_normal((40, 2 if name == "gaussian_nll" else 4)))
    check_derivatives(loss_by_name(name), z, v, y)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", [*NAMES, Loss(squares), Loss(cauchy), "mse"], ids=str)
def test_products_match_complex_steps(name, batch_norm, rng, dtype):
    """Values, gradients and Hessian products of the engine match complex steps of the reference
    with sample weights, with built-in and user-defined activations, with and without batch
    normalisation, for all samples at once and in chunks.
    """
    d, loss = (4 if name == "gaussian_nll" else 2), name if isinstance(name, str) else "mse"
    y = nets.targets(rng, loss, 70, 2)
    names = ["arctan", "wave", "bent", "bell", "tanh"]
    for sizes in ([5, 9, d], [5, 40, 30, d], [5, 30, 30, 30, d]):
        phi = [nets.OWN.get(one, one) for one in rng.choice(names, len(sizes) - 2)]
        p = nets.draw(rng, sizes, phi, loss, X=rng.standard_normal((70, 5)), y=y, weights=True,
                      l2=0.01, dtype=dtype, batch_norm=batch_norm, residual=True)  # fmt: skip
        p.options["loss"] = name
        whole = p.objective()
        v, t, ref = p.direction(rng), p.theta.astype(float), p.reference(y=whole.y)
        exact = ref.gradient(t), ref.hessian(t) @ v.astype(float)
        tolerance = 2e-12 if dtype == "float64" else 2e-4
        least = least_memory(lambda most, p=p: p.objective(memory=most).gradient(p.theta))
        few = p.objective(memory=least)
        for ob in (whole, few):
            found = ob.gradient(p.theta), ob.hessian(p.theta) @ v
            for one, other in zip(found, exact, strict=True):
                assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(other)
            assert ob.value(p.theta) == pytest.approx(ref.value(t), rel=tolerance)
        assert few.hessian(p.theta).layout["chunk"] < 70


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_user_defined_functions_equal_the_built_in_ones(kind, batch_norm, rng):
    """For a user-defined cross entropy, which couples outputs, and a user-defined tanh, all results
    equal those of the built-in ones up to rounding.
    """
    if batch_norm and kind in ("sparse", "blocks"):
        return
    X, y = rng.standard_normal((50, 6)), rng.integers(3, size=50)
    for phi in ("tanh", TANH, [TANH, "tanh"], ["tanh", TANH]):
        model, own = (
            fc.MLP([6, 6, 7, 3], which, batch_norm=batch_norm, residual=True)
            for which in ("tanh", phi)
        )
        theta, V = model.init(rng=1), rng.standard_normal((model.n_params, 2))
        assert np.array_equal(theta, own.init(rng=1))
        ours = KINDS[kind](own, X, y, Loss(cross_entropy, lower_bound=0.0), l2=0.01)
        theirs = KINDS[kind](model, X, y, "cross_entropy", l2=0.01)
        assert ours.value(theta) == pytest.approx(theirs.value(theta), rel=1e-14)
        assert_same_results(ours, theirs, theta, V, 1e-13)
        for found, known in zip(*(m.preactivations(theta, X) for m in (own, model))):
            assert np.abs(found - known).max() <= 1e-13 * np.abs(known).max()


def test_activations_with_kinks_are_accepted():
    """A user-defined relu gives the products of the built-in one, on one side of its kinks."""
    relu = Activation(lambda z: (np.maximum(z, 0), (z > 0) * 1.0, 0 * z))
    one, two = problem("cross_entropy", "relu"), problem("cross_entropy", relu)
    theta = one.model.init(rng=0)
    known = one.hessian(theta) @ np.cos(theta)
    assert np.array_equal(theta, two.model.init(rng=0)) and activation_spec(relu).like_relu
    gap = np.linalg.norm(two.hessian(theta) @ np.cos(theta) - known)
    assert gap <= 1e-13 * np.linalg.norm(known)


# --- verdicts


@pytest.mark.parametrize("phi", ["tanh", ["tanh", "own"], "own"], ids=str)
@pytest.mark.parametrize("loss", ["mse", Loss(squares, lower_bound=0.0)], ids=str)
@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_verdicts_on_user_defined_functions_are_measured(phi, loss, dtype):
    """With a loss or an activation of one's own, a minimum is found and not certified, and neither
    are the points around it.
    """
    names = [TANH if name == "own" else name for name in np.ravel(phi)]
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


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize("kind", KINDS)
def test_the_gauss_newton_matrix_of_a_nonconvex_loss_raises(kind, rng):
    """The Gauss-Newton matrix is refused if the loss is not convex for a single sample, and methods
    that prefer it work without it.
    """
    X, y = rng.standard_normal((70, 2)), np.zeros((70, 1))
    y[35] = 99.0
    ob = KINDS[kind](fc.MLP([2, 3, 1]), X, y, Loss(cauchy))
    with pytest.raises(ValueError, match="a second derivative of .* for some rows"):
        ob.ggn(ob.model.init(rng=0))
    assert fc.minimize(ob, ob.model.init(rng=0), max_iter=5, verdict=False).nit > 0


def test_all_zero_poisson_counts_exclude_a_minimum():
    """If all counts for an output are 0, the Poisson loss has no minimum, because it decreases
    without end along the bias of that output. The exceptions are an l2 penalty and a count above 0
    on a sample of positive weight.
    """
    rng = np.random.default_rng(0)
    X, y, m = rng.standard_normal((30, 2)), np.zeros((30, 2)), fc.MLP([2, 3, 2], "tanh")
    y[:, 1] = 1 + rng.poisson(2.0, 30)
    theta = m.init(rng=0)
    ob = fc.Objective(m, X, y, "poisson")
    ray = ob.certificates.ray_to_infimum(theta)
    falls = [ob.value(theta + t * ray) for t in (0, 1, 10, 100)]
    assert np.all(np.diff(falls) < 0) and np.count_nonzero(ray) == 1
    found = fc.minimize(ob, theta, rng=0, max_iter=400)
    assert not found.success and found.notes[-2].key == "no_minimum"
    assert fc.Objective(m, X, y, "poisson", l2=0.1).certificates.ray_to_infimum(theta) is None
    y[3, 0] = 1
    weight = np.where(np.arange(30) == 3, 0.0, 1.0)
    for w, expected in ((None, True), (weight, False)):
        ob = fc.Objective(m, X, y, "poisson", sample_weight=w)
        assert (ob.certificates.ray_to_infimum(theta) is None) == expected


# --- errors and calls


def limited(function):
    """Return the function, which raises KeyError for arguments above 50, and the list to which it
    appends the shape of each argument.
    """
    calls = []

    def brittle(z, *y):
        calls.append(z.shape)
        if np.abs(z).max() > 50:
            raise KeyError("too far")
        return function(z, *y)

    return brittle, calls


@pytest.mark.parametrize("kind", ["loss", "activation"])
def test_errors_in_a_function_propagate_and_the_objective_stays_usable(kind):
    """An error is that of the function, also within `minimize`, and later results are bitwise
    those before. The function is called once for each theta and block of rows.
    """
    brittle, calls = limited(cross_entropy if kind == "loss" else nets.arctan)
    ob = problem(Loss(brittle)) if kind == "loss" else problem("cross_entropy", Activation(brittle))
    theta = ob.model.init(rng=0)
    before, g = ob.value(theta), ob.gradient(theta)
    for call in (ob.value, ob.hessian, partial(fc.minimize, ob, method="l-bfgs")):
        with pytest.raises(KeyError, match="too far"):
            call(1000 * theta)
    calls.clear()
    assert ob.value(theta) == before and np.array_equal(ob.gradient(theta), g)
    H = ob.hessian(theta)
    for _ in range(5):
        H @ theta
    assert len(calls) == 1 and calls[0][0] == 50


def test_ctrl_c_inside_an_activation_raises_keyboard_interrupt():
    ring = [0]

    def slow(z):
        ring[0] -= 1
        if ring[0] == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return nets.arctan(z)

    ob = problem("cross_entropy", Activation(slow))
    theta = ob.model.init(rng=0)
    before = ob.value(theta)
    for call in (ob.value, ob.gradient, lambda t: fc.minimize(ob, t, "l-bfgs")):
        ring[0] = 1
        with pytest.raises(KeyboardInterrupt):
            call(theta + 1e-3)
    assert ob.value(theta) == before


def test_nan_of_an_activation_gives_a_nan_loss_that_no_step_accepts():
    """If an activation returns NaN, the loss is NaN, and no step to that point is accepted."""

    def edge(z):
        a, p, q = nets.arctan(z)
        return np.where(np.abs(z) > 40, np.nan, a), p, q

    ob = problem("cross_entropy", Activation(edge))
    theta = ob.model.init(rng=0)
    assert np.isnan(ob.value(1000 * theta))
    assert np.isfinite(fc.minimize(ob, theta, rng=0).fun)


def alternating():
    """Return a loss whose second derivative has the axes (N, d, d) and (N, d) in turn."""
    n_calls = 0

    def loss(z, y):
        nonlocal n_calls
        n_calls += 1
        value, first, second = cross_entropy(z, y)
        return value, first, second if n_calls % 2 else second.sum(axis=2)

    return loss


def scaled_cauchy(value=1.0, first=1.0, second=1.0):
    """Return Cauchy's loss as a function of (z, y) whose value, first and second derivatives are
    multiplied by the given factors.
    """
    return lambda z, y: tuple(x * c for x, c in zip(cauchy(z, y), (value, first, second)))


def rude(z):
    z += 1
    return nets.arctan(z)


INVALID = [  # function that creates a loss or an activation, and words of the error
    (lambda: problem(Loss(lambda z, y: (1, 2))), "must return .*got a tuple"),
    (lambda: problem(Loss(lambda z, y: (z.sum(), z, z))), r"return value as .*, got shape \(\)"),
    (lambda: problem(Loss(lambda z, y: (z[:, 0], z[:, :1], z))), "return first as .*, got shape"),
    (lambda: problem(Loss(lambda z, y: (z[:, 0], z, z[:, 0]))), "return second as .*, got shape"),
    (lambda: problem(Loss(lambda z, y: (z[:, 0].astype(int), z, z))), "dtype int64"),
    (lambda: problem(Loss(alternating())), "the same number of axes in every call, got 2 after 3"),
    (
        lambda: problem(Loss(scaled_cauchy(first=0.5))),
        "first of .* must be the derivative of value",
    ),
    (lambda: problem(Loss(scaled_cauchy(second=1.1))), "second of .* the derivative of first"),
    (lambda: problem(Loss(lambda z, y: [*cauchy(z, y)])), "must return .*got a list"),
    (lambda: problem(Loss(lambda z, y: (*cauchy(z, y)[:2], z * 1j))), "dtype complex128"),
    (lambda: problem(Loss(lambda z, y: cauchy(z - z.mean(axis=0), y))), "for the same rows|deriv"),
    (lambda: problem(Loss(cauchy, lower_bound=2.0)), ">= lower_bound=2"),
    (lambda: Loss(cauchy, lower_bound=np.nan), "must be a finite number, or None if no "),
    (lambda: Loss(cauchy, lower_bound=-np.inf), "must be a finite number, or None if no "),
    (lambda: Loss(cauchy, third_bound=1.0), "^third_bound must be left out, got 1.0. Verdicts on"),
    (lambda: Loss("mse"), "must be function"),
    (lambda: Loss.quantile(True), "^level must be a number between.*got .*"),
    (lambda: Loss.quantile(2), "^level must be a number between.*got .*"),
    (lambda: Loss.quantile(0.5, [0.5]), "^width must be a finite number.*got .*"),
    (lambda: Loss.pseudo_huber(np.inf), "^delta must be a finite number.*got .*"),
    (lambda: Activation(lambda z: (z, z)), "must return .*got a tuple"),
    (lambda: Activation(lambda z: z), r"must return \(phi, first, second\)"),
    (lambda: Activation(lambda z: (z, np.ones(3), z)), r"return first as .*, got shape \(3,\)"),
    (lambda: Activation(lambda z: (z, 1, 0)), r"return first as .*, got shape \(\)"),
    (lambda: Activation(lambda z: (z, z.astype(int), z)), "dtype int64"),
    (lambda: Activation(lambda z: (np.sqrt(z), 0.5 / np.sqrt(z), z)), "phi = nan at z = -2.986"),
    (lambda: Activation(lambda z: (z, np.ones_like(z), np.inf * z)), "second = -inf at z"),
    (lambda: Activation(lambda z: (z * z, 2 * z, 3 + 0 * z)), "of first, which is 2 by .*, got 3"),
    (lambda: Activation(lambda z: (z * z, z, 1 + 0 * z)), "of phi, which is -5.9.*, got -2.986"),
    (lambda: Activation(lambda z: (z / (9 + z[0]), z, z)), "for the same numbers in another shape"),
    (lambda: Activation(rude), "read-only"),
    (lambda: Activation(nets.arctan, bend=1.0), "^bend must be left out, got 1.0. Verdicts on"),
    (lambda: Activation("tanh"), r"must be function\(z\)"),
    (lambda: fc.MLP([2, 3, 1], nets.arctan), "must be a name, an fc.Activation"),
]


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize("make, words", INVALID)
def test_invalid_functions_and_bounds_raise(make, words):
    """The shapes, dtypes, bounds and derivatives of a function are checked when an activation is
    defined, and when an objective with a loss is created.
    """
    with pytest.raises((TypeError, ValueError), match=words):
        make()


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize(
    "loss, y, words",
    [
        ("poisson", [-1.0], "must hold numbers >= 0"),
        ("gamma", [0.0], "must hold numbers > 0"),
        ("quantile(1.5)", [0.0], "between 0 and 1"),
        ("quantile(a)", [0.0], "must be one of"),
        ("huber", [0.0], "must be one of .*pseudo_huber"),
        ("gaussian_nll", [0.0], "must have an even number"),
    ],
)
def test_losses_that_do_not_suit_the_targets_raise(loss, y, words):
    with pytest.raises(ValueError, match=words):
        fc.Objective(fc.MLP([1, 1]), [[1.0]], y, loss)


def test_losses_couple_at_most_64_outputs(rng):
    X, y = rng.standard_normal((4, 2)), rng.integers(2, size=(4, 65)).astype(float)
    most = fc.Objective(fc.MLP([2, 64]), X, y[:, :64], Loss(cross_entropy))
    assert np.isfinite(most.value(np.ones(3 * 64)))
    with pytest.raises(ValueError, match="must couple at most 64 outputs .*, got 65"):
        fc.Objective(fc.MLP([2, 65]), X, y, Loss(cross_entropy))


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


# --- names and copies


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
    problem(new)
    assert new.coupled and pickle.loads(pickle.dumps(new)).coupled


def test_activations_have_names_equality_and_copies(tmp_path):
    again = pickle.loads(pickle.dumps(nets.OWN["arctan"]))
    assert again == nets.OWN["arctan"] == copy.deepcopy(again) and hash(again) == hash(again)
    assert again.function is nets.arctan and again == Activation(nets.arctan)
    assert again != TANH and again != "arctan"
    model = fc.MLP([2, 3, 1], TANH)
    assert "Activation(hyperbolic)" in repr(model) and model == pickle.loads(pickle.dumps(model))
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(Activation(lambda z: nets.arctan(z)))
    with pytest.raises(ValueError, match="a function that a file cannot hold"):
        fc.save(tmp_path / "net.safetensors", model, model.init(rng=0))
    assert not list(tmp_path.iterdir())
