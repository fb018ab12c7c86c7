"""The values of a sample of weight 0 change no result, even if its loss overflows."""

import numpy as np
import pytest
import scipy.sparse

import fastcurv as fc
from fastcurv.network.operators import exact_diagonal
from fastcurv.network.row_views import with_model

from .. import nets
from ..plans import laid_out

HUGE = {"float32": 1e18, "float64": 1e153}
SENTINEL = {"mse": 1e300, "pseudo_huber": 1e300, "log_cosh": 1e300, "quantile": 1e300}


def exponential(z, y):
    """Return the loss exp(z) - y z (N,) and its first and second derivatives (N, d), as `fc.Loss`
    expects. The loss overflows above z = 709.
    """
    e = np.exp(z)
    return (e - y * z).sum(axis=1), e - y, e


def coupled_loss(z, y):
    """Return the loss log sum exp(z) + |z|^4 / 4 - y'z and its first and second derivatives, of
    shapes (N,), (N, d) and (N, d, d). Its softmax overflows for large z.
    """
    e = np.exp(z)
    total, square = e.sum(axis=1), (z * z).sum(axis=1)
    p = e / total[:, None]
    bend = np.eye(z.shape[1]) * (p + square[:, None])[:, None] + 2 * z[:, :, None] * z[:, None]
    first = p + square[:, None] * z - y
    return (
        np.log(total) + square**2 / 4 - (y * z).sum(axis=1),
        first,
        bend - p[:, :, None] * p[:, None],
    )


def weighted_data(rng, loss, N, d_out, dtype, soft=False):
    """Return (X, y, weight, far, wild): samples with some weights 0, and copies of X and y in which
    the samples of weight 0 make the loss overflow.
    """
    kind = loss if isinstance(loss, str) else {"exponential": "poisson"}.get(loss.name, "mse")
    X = rng.standard_normal((N, 4)).astype(dtype)
    y = nets.targets(rng, kind, N, d_out, dtype, soft)
    weight = rng.uniform(0.5, 2, N).astype(dtype)
    idle = rng.random(N) < 0.4
    idle[[0, -1]] = True, False
    weight[idle] = 0
    far, wild = X.copy(), y.copy()
    far[idle] *= HUGE[dtype]
    if loss in SENTINEL:
        wild[idle] = SENTINEL[loss] if dtype == "float64" else 1e30
    return X, y, weight, far, wild


def objective_results(ob, theta, rng):
    """Return a dict of value, gradient, products and quadratic forms of the objective at theta, or
    the error's message for a curvature that does not exist.
    """
    V = rng.standard_normal((theta.size, 3)).astype(theta.dtype)
    found = {
        "value": ob.value(theta),
        "gradient": ob.gradient(theta),
        "hessp": ob.hessp(theta, V[:, 0]),
    }
    for kind in nets.CURVATURES if not ob.model.batch_norm else nets.CURVATURES[:2]:
        try:
            H = getattr(ob, kind)(theta)
        except ValueError as error:  # a nonconvex loss
            found[kind] = str(error)
            continue
        found[kind] = np.column_stack([H @ V[:, 0], H @ V[:, 1:]])
        found[kind + " form"] = H.quadratic_form(V[:, 0])
        if not ob.model.batch_norm:
            found[kind + " diagonal"] = exact_diagonal(H)
    return found


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name
        assert isinstance(a[name], str) or np.isfinite(a[name]).all(), name


LOSSES = [*nets.LOSSES, fc.Loss(exponential), fc.Loss(coupled_loss)]


@pytest.mark.parametrize("across", [0, None])
def test_values_of_samples_of_weight_zero_do_not_change_results_bitwise(rng, arch, across):
    """Value, gradient and products of all curvatures are bitwise unchanged if the samples of weight
    0 get other values, for which the loss overflows, in both layouts and with every kernel table.
    """
    for case, loss in enumerate(LOSSES):
        dtype, soft = nets.DTYPES[case % 2], bool(case % 3)
        for d_out, N in ((1, 9), (3, 33), (17, 20)):
            model = fc.MLP([4, 6, d_out], "relu", dtype=dtype)
            X, y, weight, far, wild = weighted_data(rng, loss, N, d_out, dtype, soft)
            theta, seed = model.init(rng=case), int(rng.integers(2**32))
            with laid_out(**({} if across is None else {"across": across})):
                obs = [
                    fc.Objective(model, *one, loss, 1e-2, weight) for one in ((X, y), (far, wild))
                ]
                found = [objective_results(ob, theta, np.random.default_rng(seed)) for ob in obs]
            same(*found)


def test_streamed_and_sparse_results_ignore_samples_of_weight_zero(rng):
    for case, loss in enumerate(LOSSES):
        dtype = nets.DTYPES[case % 2]
        model = fc.MLP([4, 5, 2], "relu", dtype=dtype)
        X, y, weight, far, wild = weighted_data(rng, loss, 40, 2, dtype)
        weight[8:16] = 0  # a block whose samples all have weight 0
        theta, seed = model.init(rng=case), int(rng.integers(2**32))
        how = {"loss": loss, "l2": 1e-2, "sample_weight": weight}
        pairs = [
            [
                fc.StreamedObjective(model, A, b, block_rows=8, **how)
                for A, b in ((X, y), (far, wild))
            ],
            [
                fc.Objective(model, scipy.sparse.csr_matrix(A), b, **how)
                for A, b in ((X, y), (far, wild))
            ],
        ]
        for obs in pairs:
            same(*(objective_results(ob, theta, np.random.default_rng(seed)) for ob in obs))
        obs = [fc.Objective(model, A, b, **how) for A, b in ((X, y), (far, wild))]
        for kind in ("hessian", "ggn"):
            try:
                whole = [getattr(ob, kind)(theta) for ob in obs]
            except ValueError:  # a nonconvex loss
                continue
            found = [fc.eigsh(H, 2, "LA", rng=0).values for H in whole]
            gap = np.abs(found[0] - found[1]).max()
            assert gap <= 100 * nets.EPS[dtype] * np.abs(found[0]).max(), (loss, kind)


def test_samples_of_weight_zero_change_no_verdict(rng):
    """Three objectives have equal verdicts: one with samples of weight 0, one without these
    samples, and one with repeated samples in place of integer weights, with l2 scaled by the share
    of weights.
    """
    for case, loss in enumerate(LOSSES):
        model = fc.MLP([4, 2, 2], "tanh" if case % 2 else "identity")
        X, y, weight, far, wild = weighted_data(rng, loss, 60, 2, "float64")
        weight = np.where(weight > 0, np.ceil(weight), 0)
        counts = weight > 0
        share, times = counts.mean(), weight[counts].astype(int)
        ob = fc.Objective(model, far, wild, loss, 2e-2, weight)
        drop = fc.Objective(model, X[counts], y[counts], loss, 2e-2 / share, weight[counts])
        total = times.sum() / 60
        again = fc.Objective(
            model,
            np.repeat(X[counts], times, 0),
            np.repeat(y[counts], times, 0),
            loss,
            2e-2 / total,
        )
        theta = fc.minimize(ob, model.init(rng=case), rng=0).x
        for at in (theta, np.zeros_like(theta)):
            verdicts = [fc.classify(one, at) for one in (ob, drop, again)]
            for scale, verdict in zip((1, share, total), verdicts, strict=True):
                assert verdict.kind == verdicts[0].kind, (loss, verdicts)
                assert verdict.certified == verdicts[0].certified, (loss, verdicts)
                assert verdict.n_negative == verdicts[0].n_negative, (loss, verdicts)
                assert verdict.evidence.n_symmetry == verdicts[0].evidence.n_symmetry, (
                    loss,
                    verdicts,
                )
                assert np.isclose(scale * verdict.lambda_max, verdicts[0].lambda_max, rtol=1e-6)


def test_batch_statistics_include_samples_of_weight_zero(rng, dtype):
    """With batch normalisation, targets of samples of weight 0 do not change results. Their inputs
    change the value, because the statistics are those of all samples.
    """
    for loss in ("mse", "log_cosh", fc.Loss(exponential)):
        model = fc.MLP([4, 6, 2], "tanh", batch_norm=True, dtype=dtype)
        X, y, weight, far, wild = weighted_data(rng, loss, 30, 2, dtype)
        wild[weight == 0] = 1e30
        theta, seed = model.init(rng=1), int(rng.integers(2**32))
        obs = [fc.Objective(model, A, b, loss, 1e-2, weight) for A, b in ((X, y), (X, wild))]
        same(*(objective_results(ob, theta, np.random.default_rng(seed)) for ob in obs))
        moved = fc.Objective(model, np.where(weight[:, None] > 0, X, 2 * X), y, loss, 1e-2, weight)
        assert moved.value(theta) != obs[0].value(theta)


def test_overflowing_hidden_units_of_samples_of_weight_zero_give_no_nan(rng, dtype):
    """If hidden units overflow for samples of weight 0, results in memory, streamed and sparse are
    bitwise those without overflow, and do not become NaN as 0 times infinity.
    """
    model = fc.MLP([4, 6, 6, 2], "relu", dtype=dtype)
    X, y, weight, far, _ = weighted_data(rng, "mse", 40, 2, dtype)
    far[weight == 0] = np.finfo(dtype).max
    kept = far.copy()
    theta, seed = model.init(rng=1), int(rng.integers(2**32))
    how = {"loss": "mse", "l2": 1e-2, "sample_weight": weight}
    for kind in (fc.Objective, fc.StreamedObjective):
        obs = [kind(model, A, y, **how) for A in (X, far)]
        same(*(objective_results(ob, theta, np.random.default_rng(seed)) for ob in obs))
    obs = [fc.Objective(model, scipy.sparse.csr_matrix(A), y, **how) for A in (X, far)]
    same(*(objective_results(ob, theta, np.random.default_rng(seed)) for ob in obs))
    assert np.array_equal(far, kept)


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_matrix])
def test_large_inputs_of_samples_of_weight_zero_return_with_other_weights(form):
    """Other weights make visible the inputs that were given, also in an objective of another model
    or precision, and in batches of a streamed objective.
    """
    X, y, weight = np.array([[1e30], [1.0], [2.0]], np.float32), np.arange(3.0), [0, 1, 1]
    model = fc.MLP([1, 1], dtype="float32")
    ob = fc.Objective(model, form(X), y, "mse", sample_weight=weight)
    streamed = fc.StreamedObjective(model, form(X), y, "mse", sample_weight=weight)
    double = ob.astype("float64")
    for other in (
        ob, with_model(ob, fc.MLP([1, 2, 1], dtype="float32")), double, double.astype("float32"),
        streamed.batch(np.arange(3)), next(streamed.batches(3, np.random.default_rng(0))),
    ):  # fmt: skip
        rows = np.ravel(other.reweighted(None).X.sum(axis=1))
        assert np.array_equal(np.sort(rows), [1, 2, X[0, 0]]), other
    # An entry beyond the range of float32 has no value in this precision, and remains 0.
    far = fc.Objective(fc.MLP([1, 1]), form([[1e200], [0], [0]]), y, "mse", sample_weight=weight)
    assert far.astype("float32").reweighted(None).X.sum() == 0
