"""Objectives whose rows are streamed in blocks have the sums of rows in memory, clear errors and
bounded memory.
"""

from fractions import Fraction

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import eigsh as arpack

import fastcurv as fc
from fastcurv.certify import rounding_bound
from fastcurv.certify.bounds import assembled
from fastcurv.network.sums import TREE_ARITY, TreeSum, sum_parts

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


@pytest.mark.parametrize("sparse", [False, True])
def test_nothing_is_proved_about_rows_in_blocks(rng, sparse):
    """The lower bound, kinks and saturation of streamed and sparse rows equal those of an array.
    There is no bound on rounding, and the verdict is that of an array, but measured.
    """
    model, X, y, options = draw(rng, activation="relu", l2=1e-2)
    X[X < 0] = 0.0
    a = fc.Objective(model, X, y, **options)
    b = (
        fc.Objective(model, csr_matrix(X), y, memory=1 << 16, **options)
        if sparse
        else fc.StreamedObjective(model, X, y, block_rows=20, **options)
    )
    theta = model.init(rng=rng)
    known, measured = a.certificates, b.certificates
    assert measured.loss_lower_bound == known.loss_lower_bound == 0
    for radius in (0.0, 0.05):
        assert known.kinks(theta, radius) == measured.kinks(theta, radius)
    assert known.saturation(theta) == measured.saturation(theta)
    H = b.hessian(theta)
    bounds = rounding_bound(b, theta), rounding_bound(H, theta), assembled(H)
    assert bounds == (None, None, None)
    assert rounding_bound(H.restrict(layers=[0]), theta[:42]) is None
    smooth = fc.MLP(SIZES)
    a, b = (fc.Objective(smooth, ob.batch(slice(None)).X, y, **options) for ob in (a, b))
    b = b if sparse else fc.StreamedObjective(smooth, X, y, block_rows=20, **options)
    x = fc.minimize(a, smooth.init(rng=0)).x
    assert fc.classify(a, x).certified
    verdict = fc.classify(b, x)
    assert (verdict.kind, verdict.certified) == ("minimum", False)
    assert "the rows are sparse or come in blocks" in str(verdict)


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
    neighbouring parts. The error of the sum against exact fractions is within the bound for the
    depth of the tree, at most 3 (TREE_ARITY - 1) additions.
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
        assert abs(Fraction(float(found[0])) - exact) <= 3 * (TREE_ARITY - 1) * size / 2**53 * 2


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
