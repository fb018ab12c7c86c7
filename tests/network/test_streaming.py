"""Objectives whose rows are streamed in blocks have the sums of rows in memory, clear errors and
bounded memory.
"""

import inspect
from fractions import Fraction

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import eigsh as arpack

import fastcurv as fc
from fastcurv.certify.certificates import Certificates
from fastcurv.certify.sums import SumCertificates, select_representative_rows
from fastcurv.network.sums import TREE_ARITY, TreeSum, max_additions_per_part, sum_parts
from fastcurv.structure.orbits import column_dependencies

from .product_cases import assert_same_results

pytestmark = pytest.mark.by_day(share=1 / 2)

N, SIZES = 137, [5, 7, 4, 3]
CASES = [
    ("cross_entropy", "tanh", 1e-2, True),
    ("mse", "softplus", 1e-2, False),
    ("binary_cross_entropy", "relu", 0.0, True),
]


def draw(rng, loss="cross_entropy", dtype="float64", activation="tanh", N=N, **options):
    model = fc.MLP(SIZES, activation, dtype=dtype)
    X = rng.standard_normal((N, SIZES[0])).astype(dtype)
    y = rng.integers(3, size=N) if loss == "cross_entropy" else rng.random((N, 3))
    return model, X, y, dict(loss=loss, **options)


def in_memory_and_streamed(rng, block_rows=20, weights=True, **options):
    """Return (whole, streamed, theta): an objective in memory, a streamed one of the same rows in
    blocks of `block_rows`, and parameters.
    """
    model, X, y, options = draw(rng, **options)
    if weights:
        options["sample_weight"] = rng.random(len(X))
    parts = fc.StreamedObjective(model, X, y, block_rows=block_rows, **options)
    return fc.Objective(model, X, y, **options), parts, model.init(rng=rng)


@pytest.mark.parametrize("loss, activation, l2, l2_biases", CASES)
@pytest.mark.parametrize("dtype, tol", [("float64", 1e-13), ("float32", 2e-6)])
def test_all_results_equal_those_of_rows_in_memory(
    rng, loss, activation, l2, l2_biases, dtype, tol
):
    a, b, theta = in_memory_and_streamed(
        rng, loss=loss, activation=activation, l2=l2, l2_biases=l2_biases, dtype=dtype
    )
    assert_same_results(b, a, theta, rng.standard_normal((a.n_params, 5)).astype(dtype), tol)
    if dtype == "float32":  # `astype` must use the rows as rounded to float32
        wide = a.astype("float64").gradient(theta), b.astype("float64").gradient(theta)
        assert np.abs(wide[0] - wide[1]).max() <= 1e-14


@pytest.mark.parametrize("loss, activation, l2, l2_biases", CASES)
def test_bounds_of_streamed_products_hold(rng, loss, activation, l2, l2_biases, dtype):
    """Streamed gradients, products and columns differ from the precise gradient and from results in
    memory, in float64, by at most their bounds. The gradient's bound is at most 1e-3 in float32 and
    1e-11 in float64.
    """
    how = {"loss": loss, "activation": activation, "l2": l2, "l2_biases": l2_biases}
    _, b, theta = in_memory_and_streamed(rng, dtype=dtype, **how)
    exact, slack = b.batch(slice(None)), 0.0
    if dtype == "float32":
        how = {"sample_weight": exact.sample_weight, "l2_biases": l2_biases}
        exact = fc.Objective(fc.MLP(SIZES, activation), exact.X, exact.y, loss, l2, **how)
    else:
        slack = 1e-14  # the result in memory is rounded as well
    g, error = b.certificates.precise_gradient(theta)
    assert np.linalg.norm(b.gradient(theta) - g) <= b.rounding_bound(theta) + error
    assert b.rounding_bound(theta) <= (1e-3 if dtype == "float32" else 1e-11)
    v = rng.standard_normal(b.n_params).astype(dtype)
    for kind in ("hessian", "ggn", "empirical_fisher"):
        A, B = getattr(exact, kind)(theta), getattr(b, kind)(theta)
        gap = np.linalg.norm((A @ v.astype(exact.dtype)) - (B @ v))
        assert gap <= B.rounding_bound(v) + slack * (1 + np.linalg.norm(v))
        columns = np.linalg.norm(A.to_dense() - B.to_dense(), axis=0)
        assert (columns <= np.sqrt(2) * B.column_error_bounds().max() + slack).all()


@pytest.mark.parametrize("inputs, n", [(13, 61), (14, 65), (30, 129)])
def test_column_bounds_are_small_for_any_number_of_columns(rng, inputs, n):
    """Error bounds of all columns, which are computed 64 columns at a time, are below 1e-12, also
    if the last group has a single column.
    """
    model = fc.MLP([inputs, 4, 1])
    X, y = rng.standard_normal((10, inputs)), rng.standard_normal(10)
    ob = fc.StreamedObjective(model, X, y, "mse", 1e-2, block_rows=4)
    H = ob.hessian(model.init(rng=0))
    assert len(H.theta) == n and H.column_error_bounds().max() < 1e-12
    assert fc.inertia(H).n_zero == 0


@pytest.mark.parametrize("loss, activation, l2, l2_biases", CASES)
def test_proofs_equal_those_of_rows_in_memory(rng, loss, activation, l2, l2_biases):
    whole, parts, theta = in_memory_and_streamed(
        rng, loss=loss, activation=activation, l2=l2, l2_biases=l2_biases
    )
    theta += rng.uniform(-0.1, 0.1, theta.size)  # no pre-activation is exactly 0, at a kink
    a, b = whole.certificates, parts.certificates
    (g, ga), (h, hb) = a.precise_gradient(theta), b.precise_gradient(theta)
    assert np.linalg.norm(g - h) <= min(ga + hb, 1e-15) and hb <= 1.001 * ga + 1e-17
    (f, fa), (k, kb) = a.precise_value(theta), b.precise_value(theta)
    assert abs(f - k) <= fa + kb <= 1e-15
    units = 10.0 ** rng.uniform(-1, 1, parts.n_params)
    third = a.third_bound(theta, 1e-6), a.third_bound_in_units(theta, 1e-6, units)
    assert b.third_bound(theta, 1e-6) == pytest.approx(third[0], rel=1e-6)
    assert b.third_bound_in_units(theta, 1e-6, units) == pytest.approx(third[1], rel=1e-6)
    assert b.orbit_spread(units) == a.orbit_spread(units) > 1
    assert b.loss_lower_bound == a.loss_lower_bound == 0
    for radius in (0.0, 0.05):
        assert a.kinks(theta, radius) == b.kinks(theta, radius)
    assert b.kink_margin(theta) == pytest.approx(a.kink_margin(theta), rel=0.05)
    lowest = np.linalg.eigvalsh(whole.hessian(theta).to_dense())[0]
    assert b.curvature_floor(theta) <= lowest + 1e-12
    assert a.saturation(theta) == b.saturation(theta)
    assert np.array_equal(a.flat_directions(theta), b.flat_directions(theta))
    assert b.residual_bounds(theta, 0.1) is None and b.relu_rows() is None


def test_every_property_of_a_network_is_defined_for_streams():
    """Every method of `Certificates` is a sum over shards, is computed from shards elsewhere or is
    overridden in `SumCertificates`, except for those that need no samples.
    """
    without_rows = {
        "flat_directions",
        "orbit_spread",
        "probes",
        "why_no_minimum",
    }
    without_rows |= {"attains_lower_bound"}
    known = {name: part for name, part in vars(Certificates).items() if not name.startswith("_")}
    summed = {
        name
        for name, part in known.items()
        if callable(part) and "_sum_over_shards" in inspect.unwrap(part).__code__.co_names
    }
    thirds = {"third_bound", "third_bound_in_units"}
    assert {"kinks", "kink_margin", "input_output_ranges", "saturation"} | thirds == summed
    # These two are summed by `fastcurv.certify.precise.precise_gradient_and_value`.
    folded = {"precise_gradient", "precise_value"}
    assert known.keys() - summed - folded - set(vars(SumCertificates)) == without_rows


def test_symmetries_must_hold_in_every_block(rng):
    """A unit that is inactive in every block of samples is reported as a symmetry. Units that are
    inactive in some blocks only are not reported.
    """
    model = fc.MLP([2, 3, 1], "relu")
    X = np.vstack([np.full((10, 2), 1.0), np.full((10, 2), -1.0)]) + 0.1 * rng.random((20, 2))
    theta = model.flatten([(-np.ones((3, 2)), np.array([0.0, 0.0, -9.0])), (np.ones((1, 3)), [0])])
    a = fc.Objective(model, X, rng.random(20), "mse")
    b = fc.StreamedObjective(model, X, rng.random(20), "mse", block_rows=10)
    for ob in (a, b):
        assert [(o.name, len(o)) for o in ob.certificates.orbits(theta)][0] == ("off", 4)


def test_rays_along_which_the_loss_decreases_must_hold_in_every_block(rng):
    model = fc.MLP([2, 3, 2], bias=False)
    theta = model.init(rng=rng)
    X = rng.standard_normal((40, 2))
    y = model.predict(theta, X).argmax(axis=1)
    whole = fc.Objective(model, X, y).certificates.ray_to_infimum(theta)
    known = fc.StreamedObjective(model, X, y, block_rows=16).certificates
    assert np.allclose(known.ray_to_infimum(theta), whole)
    y[-1] = 1 - y[-1]
    known = fc.StreamedObjective(model, X, y, block_rows=16).certificates
    assert known.ray_to_infimum(theta) is None


def test_representative_rows_give_the_result_of_all_rows(rng):
    assert select_representative_rows(np.zeros((0, 3))).X.shape == (0, 3)
    for _ in range(50):
        base = rng.integers(-1, 2, size=(30, 3)).astype(float)
        X = base[:, rng.integers(3, size=6)]
        X[:, 1] *= rng.integers(2)
        X[:, 2] = -0.0 if rng.integers(2) else 7.0
        found = select_representative_rows(X[:17]) + select_representative_rows(X[17:])
        for constant in (False, True):
            want, have = column_dependencies(X, constant), column_dependencies(found.X, constant)
            assert len(want) == len(have)
            assert all(np.array_equal(w, h) and c == d for (w, c), (h, d) in zip(want, have))


def test_a_streamed_minimum_is_certified(rng):
    a, b, theta = in_memory_and_streamed(rng, l2=1e-2, weights=False, block_rows=40)
    run = fc.minimize(b, theta, "newton-cg", max_iter=60, rng=0)
    assert run.success
    found, known = fc.classify(b, run.x), fc.classify(a, run.x)
    assert (found.kind, found.certified) == (known.kind, known.certified) == ("minimum", True)
    assert found.radius == pytest.approx(known.radius, rel=1)


def test_algorithms_give_equal_results_for_streams(rng):
    a, b, theta = in_memory_and_streamed(rng, l2=1e-3)
    H, K = a.hessian(theta), b.hessian(theta)
    want = arpack(H.to_dense(), k=3, which="LA")[0]
    assert np.abs(np.sort(fc.eigsh(K, k=3, which="LA", rng=0).values) - want).max() <= 1e-9
    assert fc.trace(K, 32, rng=0).estimate == pytest.approx(
        fc.trace(H, 32, rng=0).estimate, rel=1e-10
    )
    density = [fc.spectral_density(op, rng=0, n_probes=2, n_steps=20) for op in (H, K)]
    assert np.abs(density[0].nodes - density[1].nodes).max() <= 1e-8
    assert fc.classify(b, theta).kind == fc.classify(a, theta).kind
    assert tuple(fc.inertia(K)) == tuple(fc.inertia(H))


# --- sums


def test_pairwise_sums_are_bitwise_those_of_groups(rng):
    """A `TreeSum`, to which parts are added one by one, is bitwise equal to sums over groups of
    neighbouring parts. The error of the sum against exact fractions is within the bound of
    `max_additions_per_part`.
    """
    for count in (
        1,
        2,
        TREE_ARITY - 1,
        TREE_ARITY,
        TREE_ARITY + 1,
        TREE_ARITY**2,
        TREE_ARITY**2 + TREE_ARITY + 3,
        300,
    ):
        parts = list(rng.standard_normal((count, 3)) * 10.0 ** rng.integers(-8, 8, (count, 1)))
        tree = TreeSum()
        for part in parts:
            tree.add_part((part.copy(), 1))
        level = [(part, 1) for part in parts]
        while len(level) > 1:
            level = [sum_parts(level[i : i + TREE_ARITY]) for i in range(0, len(level), TREE_ARITY)]
        found, number = tree.total()
        assert np.array_equal(found, level[0][0]) and number == count
        exact = sum(Fraction(float(part[0])) for part in parts)
        size = sum(abs(Fraction(float(part[0]))) for part in parts)
        assert (
            abs(Fraction(float(found[0])) - exact)
            <= max_additions_per_part(count) * size / 2**53 * 2
        )


def test_a_gradient_or_a_block_product_takes_one_pass(rng):
    _, b, theta = in_memory_and_streamed(rng)
    n = b.n_params
    for action, passes in (
        (lambda: b.value_and_gradient(theta), 1),
        (lambda: b.hessian(theta), 0),
        (lambda: b.hessian(theta) @ np.ones((n, 40)), 1),
        (lambda: b.hessian(theta).gradient, 1),
    ):
        before = b.n_passes
        action()
        assert b.n_passes - before == passes
    assert b.n_rows_read == b.n_passes * N


def test_results_agree_for_every_block_size(rng):
    model, X, y, options = draw(rng)
    theta = model.init(rng=0)
    want = fc.Objective(model, X, y, **options).gradient(theta)
    for rows in (1, 2, 16, 17, N - 1, N, 10 * N):
        ob = fc.StreamedObjective(model, X, y, block_rows=rows, **options)
        assert np.abs(ob.gradient(theta) - want).max() <= 1e-15 and ob.n_shards == -(-N // rows)


def test_a_batch_larger_than_memory_is_read_again(rng):
    model, X, y, options = draw(rng, "mse", N=4000)
    ob, theta = fc.StreamedObjective(model, X, y, memory=500_000, **options), model.init(rng=0)
    rows = np.arange(3900)
    part, whole = ob.batch(rows), fc.Objective(model, X[rows], y[rows], **options)
    assert isinstance(part, fc.StreamedObjective) and part.n_samples == 3900
    assert np.abs(part.gradient(theta) - whole.gradient(theta)).max() <= 1e-15
    assert isinstance(ob.batch(rows[:20]), fc.Objective)


def test_streamed_minibatches_are_reproducible_and_descend(rng):
    model, X, y, options = draw(rng, N=300)
    ob = fc.StreamedObjective(model, X, y, block_rows=64, **options)
    theta = model.init(rng=0)
    runs = [
        fc.minimize(ob, theta, "adam", batch_size=20, max_iter=3, rng=s, learning_rate=1e-2)
        for s in (1, 1, 2)
    ]
    assert np.array_equal(runs[0].x, runs[1].x) and not np.array_equal(runs[0].x, runs[2].x)
    assert runs[0].fun < ob.value(theta)


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize("sizes", [[3, 5, 2], [40, 90, 70, 2]])  # with and without a copy of X
def test_nan_is_found_in_any_pass(rng, sizes):
    """If rows become NaN or infinite between passes, the error names the rows of the block. Entries
    whose squares overflow are accepted.
    """
    X, y = rng.standard_normal((400, sizes[0])), rng.integers(2, size=400)
    model = fc.MLP(sizes)
    ob = fc.StreamedObjective(model, X, y, block_rows=64)
    theta = model.init(rng=0)
    first = ob.gradient(theta)
    for bad in (np.nan, np.inf):
        for row, name in ((0, "0 to 63"), (200, "192 to 255"), (399, "384 to 399")):
            kept, X[row, 1] = X[row, 1], bad
            with pytest.raises(ValueError, match=f"in rows {name}: X must hold finite numbers"):
                ob.gradient(theta + 1e-3)
            X[row, 1] = kept
    X[:, 0] *= 1e-200
    X[100, 0] = 1e200
    ob = fc.StreamedObjective(model, X, y, block_rows=64)
    assert np.isfinite(ob.value(theta))
    X[100, 1] = np.nan
    with pytest.raises(ValueError, match="in rows 64 to 127"):
        ob.value(theta + 1e-3)
    assert np.isfinite(first).all()


def test_blocks_of_weight_zero_do_not_affect_saturation(rng):
    """The saturation of a stream with blocks of weight 0 equals that in memory. If all samples have
    weight 0, no unit is counted as saturated.
    """
    model, X, y, options = draw(rng, activation="sigmoid", loss="cross_entropy")
    weight = np.r_[np.zeros(N // 2), np.ones(N - N // 2)]
    a = fc.Objective(model, X, y, sample_weight=weight, **options)
    b = fc.StreamedObjective(model, X, y, sample_weight=weight, block_rows=N // 4, **options)
    theta = 30 * model.init(rng=0)
    assert a.certificates.saturation(theta) == b.certificates.saturation(theta)
    none = fc.Objective(model, X, y, sample_weight=0 * weight, **options)
    assert none.certificates.saturation(theta)["saturated"] == 0.0


def test_bounds_of_float32_principal_blocks_hold_for_streams(rng):
    """In float32, products of principal blocks of streamed and sparse objectives differ from
    float64 by at most their bounds, which are at most 1e-5.
    """
    model = fc.MLP([4, 6, 3], dtype="float32")
    X, y = rng.standard_normal((50, 4)).astype("f4"), rng.integers(3, size=50)
    theta, sparse = model.init(rng=0), csr_matrix(np.where(X > 0, X, 0))
    for ob in (
        fc.StreamedObjective(model, X, y, l2=0.1, block_rows=16),
        fc.Objective(model, sparse, y),
    ):
        H, exact = ob.hessian(theta), ob.astype("float64").hessian(theta)
        for which in ({"layers": [1]}, {"indices": [0, 7, 30]}):
            part, truth = H.restrict(**which), exact.restrict(**which)
            v = rng.standard_normal(part.shape[0]).astype("f4")
            gap = np.linalg.norm(truth @ v.astype(float) - part @ v)
            assert gap <= part.rounding_bound(v) <= 1e-5
