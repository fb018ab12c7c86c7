"""Verdicts at large n, if the samples reach few dimensions, are as certain as at small n."""

from types import SimpleNamespace

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.critical.range_spectrum import RangeSpectrum

from .test_on_kinks import run_to_kinks

pytestmark = pytest.mark.by_day(share=1 / 3)

SIZES, N = (24, 18, 16, 3), 3


def trained(rng, loss="mse", l2=1e-2, **options):
    model = fc.MLP(SIZES, "tanh")
    X = rng.standard_normal((N, SIZES[0]))
    y = rng.permutation(3) if loss == "cross_entropy" else rng.standard_normal((N, 3))
    ob = fc.Objective(model, X, y, loss, l2=l2, **options)
    theta = fc.minimize(ob, model.init(seed=0), "newton-cg", max_iter=400).x
    return ob, theta


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_a_minimum_is_certified_and_counted(loss, rng):
    ob, theta = trained(rng, loss)
    dense = fc.classify(ob, theta)
    point = fc.classify(ob, theta, dense_below=500)
    assert ob.n_params > 500 and dense.kind == point.kind == "minimum"
    assert point.certified and point.failure_probability == 0
    assert point.n_positive == ob.n_params and point.n_negative_bounds == (0, 0)
    assert point.range_dim < 500 and point.complement_eigenvalue == ob.l2
    lowest = np.linalg.eigvalsh(ob.hessian(theta).to_dense())[0]
    assert abs(point.lambda_min - lowest) < 1e-11
    assert point._numbers["n_complement"] == ob.n_params - point.range_dim
    # `dense_below` is less than the dimension of the range, so the range is not used
    again = fc.classify(ob.astype("float64"), theta, dense_below=100)
    assert again.range_dim is None and again.n_positive is None


def saddle_at_zero(rng, l2):
    """Return (objective, sigma) for a 30-20-1 network, whose Hessian at 0 has the eigenvalues l2 +
    sigma, l2 - sigma, l2 and 2 + l2.
    """
    X, y = rng.standard_normal((2, 30)), rng.standard_normal((2, 1))
    y -= y.mean(axis=0)
    ob = fc.Objective(fc.MLP((30, 20, 1), "tanh"), X, y, "mse", l2=l2)
    B = np.linalg.norm(2 / 2 * (y.T @ X))
    return ob, B


def test_saddles_get_their_inertia(rng):
    """At theta = 0, the verdict counts the signs of the eigenvalues l2 + sigma and l2 - sigma of
    each of the 20 units, and of 2 + l2 of the last bias.
    """
    ob, sigma = saddle_at_zero(rng, 0.1)
    assert sigma > 0.2
    point = fc.classify(ob, np.zeros(ob.n_params), dense_below=200)
    assert point.kind == "saddle" and point.certified
    assert (point.n_negative, point.n_zero) == (20, 0)
    assert point.n_positive == ob.n_params - 20
    assert abs(point.lambda_min - (0.1 - sigma)) < 1e-12


def test_dimensions_outside_the_range_count_as_zeros_without_l2(rng):
    """Without l2 the Hessian is 0 along dimensions that no sample reaches, so these count as zeros
    and no minimum is reported.
    """
    ob, sigma = saddle_at_zero(rng, 0.0)
    point = fc.classify(ob, np.zeros(ob.n_params), dense_below=200)
    assert point.kind == "saddle" and point.n_negative == 20
    assert point.n_zero >= ob.n_params - point.range_dim and point.complement_eigenvalue == 0
    assert point.n_negative_bounds == (20, 20 + point.n_zero)


@pytest.mark.parametrize("share", [1 + 1e-9, 1 - 1e-9, 1.0, 1 + 1e-14, 1 - 1e-14])
def test_verdicts_are_right_if_eigenvalues_are_nearly_zero(share, rng):
    """Kind and counts are correct, or unknown, if 20 eigenvalues equal ``sigma * (share - 1)`` with
    a share near 1, where ``sigma * share`` is the l2.
    """
    _, sigma = saddle_at_zero(np.random.default_rng(5), 0.0)
    ob, sigma = saddle_at_zero(np.random.default_rng(5), sigma * share)
    point = fc.classify(ob, np.zeros(ob.n_params), dense_below=200)
    if point.certified:
        assert abs(share - 1) > 1e-12
        assert point.kind == ("saddle" if share < 1 else "minimum")
    if point.n_negative is not None:
        assert point.n_negative == 0 if share >= 1 else point.n_negative in (0, 20)


def test_the_shift_of_logits_counts_as_a_symmetry_if_biases_have_no_l2(rng):
    """If l2 applies to the matrices only, the common shift of all logits counts as a proved
    symmetry.
    """
    ob, theta = trained(rng, "cross_entropy", 0.01, l2_biases=False)
    dense = fc.classify(ob, theta)
    point = fc.classify(ob, theta, dense_below=500)
    assert point.certified and point.n_symmetry == 1
    assert (point.kind, point.certified) == (dense.kind, dense.certified)
    assert (point.n_positive, point.n_negative, point.n_zero, point.n_symmetry) == (
        dense.n_positive,
        dense.n_negative,
        dense.n_zero,
        dense.n_symmetry,
    )


def test_an_interpolating_net_is_a_global_minimum_at_large_n(rng):
    ob, theta = trained(rng, "mse", 0.0)
    point = fc.classify(ob, theta, dense_below=100)
    point = point if point.nearest_verdict is None else point.nearest_verdict
    assert point.kind == "minimum" and point.certified and point.rule == "interpolation"
    assert point.n_positive == 3 * N


def test_proofs_in_float32_are_about_the_stored_numbers(rng):
    ob, theta = trained(rng)
    low = ob.astype("float32")
    point = fc.classify(low, theta.astype("float32"), dense_below=500)
    assert point.range_dim is not None or point.kind == "not_critical"


def test_unsupported_networks_and_small_budgets_use_the_general_method(rng):
    """Too small a budget of products gives a verdict that does not use the range of the samples,
    and a relu network at its kinks is not certified.
    """
    ob, theta = trained(rng)
    point = fc.classify(ob, theta, dense_below=500, max_products=200)
    assert point.range_dim is None and point.n_positive is None
    relu = fc.Objective(fc.MLP(SIZES, "relu"), ob.X, ob.y, "mse", l2=0.01)
    at = fc.classify(relu, np.zeros(relu.n_params), dense_below=500)
    assert not at.certified


def test_absent_class_excludes_a_minimum(rng):
    """If a class has no samples and l2 does not apply to its bias, no minimum is reported, since
    the bias diverges.
    """
    ob, _ = trained(rng, "cross_entropy", 0.05, l2_biases=False)
    ob = fc.Objective(ob.model, ob.X, [0, 1, 1], l2=0.05, l2_biases=False)
    theta = fc.minimize(ob, ob.model.init(seed=0), "newton-cg", max_iter=400).x
    point = fc.classify(ob, theta, dense_below=500)
    assert point.kind != "minimum" and not point.certified


def test_no_verdict_is_certified_by_signs_of_very_weak_curvature(rng):
    """If the dense verdict on a point of very weak curvature is degenerate and not certified, the
    verdict from the range of the samples is not certified either.
    """
    X, y = rng.standard_normal((1, 13)), np.array([[1.0]])
    model = fc.MLP((13, 8, 1), "elu")
    ob = fc.Objective(model, X, y, "binary_cross_entropy", l2=0.1)
    theta = fc.minimize(ob, model.init(seed=0), "newton-cg", max_iter=60).x
    dense = fc.classify(ob, theta)
    point = fc.classify(ob, theta, dense_below=100)
    if not point.certified and dense.kind == "degenerate":
        assert point.kind in ("degenerate", "undecided", "not_critical")
    assert not (point.certified and not dense.certified and dense.kind == "degenerate")


def range_space(rest, values=()):
    """Return the `RangeSpectrum` of a space of three dimensions, two of which have the eigenvalues
    `values`, or are symmetries if `values` is empty. The third has the eigenvalue `rest`.
    """
    space = SimpleNamespace(
        n=3, m=2, n_complement=1, complement_eigenvalue=rest,
        complement_vector=lambda seed=0: np.eye(3)[2],
        embed=lambda y: np.append(y, 0.0) if len(y) < 3 else y,
    )  # fmt: skip
    flat = np.zeros((3, 0)) if len(values) else np.eye(3)[:, :2]
    vectors = np.eye(3)[:, :2] if len(values) else np.zeros((2, 0))
    return RangeSpectrum(np.array(values), vectors, 1e-12, np.ones(3), flat, space=space)


@pytest.mark.parametrize("rest", [0.1, 5.0])
def test_spectrum_ends_include_the_complement_of_the_range_but_no_symmetries(rest):
    ((value, v),) = range_space(rest).extremes()
    assert value == rest and v.tolist() == [0, 0, 1]
    assert range_space(rest).min_abs_eigenvalue_bound == rest - 1e-12 and range_space(
        rest
    ).weakest_eigenpairs(3)[1].shape == (
        3,
        0,
    )
    ends = range_space(rest, [-1.0, 2.0]).extremes()
    assert [value for value, _ in ends] == [-1.0, 2.0] + [rest] * (rest > 2)
    assert rest < 2 or np.array_equal(ends[-1][1], np.eye(3)[2])


@pytest.fixture(scope="module")
def interpolating():
    """Return (model, X, y, theta): a model with 21 parameters, three samples with targets, and a
    theta at which the network fits them.
    """
    rng = np.random.default_rng(0)
    X, y, model = rng.standard_normal((3, 2)), rng.standard_normal(3), fc.MLP([2, 5, 1])
    theta = fc.minimize(fc.Objective(model, X, y, loss="mse"), model.init(seed=0), seed=0).x
    return model, X, y, theta


@pytest.mark.parametrize("options", [{}, {"dense_below": 1}])
@pytest.mark.parametrize(
    "rows, weight",
    [
        ([0, 1, 2], None),
        ([0, 1, 2, 3], [1.0, 1.0, 1.0, 0.0]),
        ([3, 0, 1, 2], [0.0, 2.0, 0.5, 1.0]),
        ([0, 1, 2] * 2, None),
        ([0, 1, 2, 2, 2, 3, 0], [1.0, 3.0, 0.1, 0.7, 2.0, 0.0, 0.0]),
        ([0, 1, 2] * 12, None),  # more residuals than parameters
    ],
)
def test_weightless_and_equal_samples_change_no_proof(rows, weight, options, interpolating):
    """A point of loss 0 is certified as a minimum, and `n_positive` is the number of distinct
    samples of positive weight, whatever samples are repeated or have weight 0.
    """
    model, X, y, theta = interpolating
    X, y = np.vstack([X, [1.0, 2.0]])[rows], np.append(y, 0.0)[rows]
    ob = fc.Objective(model, X, y, loss="mse", sample_weight=weight)
    for form in (ob, ob.batch(np.arange(len(rows)))):
        said = fc.classify(form, theta, **options)
        assert said.kind == "minimum" and said.certified and said.rule == "interpolation"
        assert said.radius < 1e-6
        assert (said.n_positive, said.n_negative, said.n_zero) == (3, 0, 18)


def test_equal_inputs_with_different_targets_prevent_loss_0(interpolating):
    model, X, y, theta = interpolating
    X, y = np.vstack([X, X[:1]]), np.append(y, y[0] + 1e-9)
    said = fc.classify(fc.Objective(model, X, y, loss="mse"), theta)
    assert said.rule != "interpolation"


@pytest.mark.parametrize("how", ["idle", "doubled"])
def test_repeated_and_weightless_rows_do_not_enlarge_the_range(how, rng):
    """At large n, repeated samples and samples of weight 0 change neither the dimension of the
    range nor the verdict.
    """
    ob, theta = trained(rng)
    point = fc.classify(ob, theta, dense_below=500)
    X, y, weight = np.vstack([ob.X] * 9), np.vstack([ob.y] * 9), None
    if how == "idle":
        X[N:], weight = rng.standard_normal((8 * N, X.shape[1])), [3.0] * N + [0.0] * 8 * N
        weight = np.array(weight) * 3.0
    more = fc.Objective(ob.model, X, y, l2=ob.l2, loss="mse", sample_weight=weight)
    said = fc.classify(more, theta, dense_below=500)
    assert said.certified and said.range_dim == point.range_dim
    assert (said.kind, said.n_positive) == (point.kind, point.n_positive)


@pytest.mark.parametrize("place", [0, 60])
def test_samples_of_weight_0_do_not_affect_a_proved_minimum_at_kinks(place):
    """A minimum at active kinks stays proved if a sample of weight 0 is added, even one at a kink
    of a unit.
    """
    ob, found = run_to_kinks(1)
    model = ob.model
    one = fc.classify(ob, found.x)
    assert one.certified and one.n_active_kinks
    (W, b), _ = model.unflatten(found.x)
    unit = int(np.argmax(np.linalg.norm(W, axis=1)))
    on_kink = -b[unit] * W[unit] / (W[unit] @ W[unit])
    X, y = np.insert(ob.X, place, on_kink, axis=0), np.insert(ob.y, place, 5.0)
    weight = np.insert(np.full(60, 61 / 60), place, 0.0)
    said = fc.classify(
        fc.Objective(model, X, y, loss="mse", l2=3e-3, sample_weight=weight), found.x
    )
    assert said.kind == "minimum" and said.certified and said.n_active_kinks == one.n_active_kinks
