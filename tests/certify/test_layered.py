"""The Hessian assembled layer by layer, compared with long double, its error bounds in any units of
the parameters, and the Jacobian with bounds on its rows.
"""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine as engine
from fastcurv.certify.bounds import assembled
from fastcurv.certify.dense_hessian import EnclosedHessian
from fastcurv.certify.passes import passes_at
from fastcurv.spectrum.dense import dense_matrix

from ..nets import ACTIVATIONS, DTYPES, KERNELS
from .bound_cases import ORACLE
from .longdouble import Truth, size

pytestmark = pytest.mark.by_day(share=1 / 3)


def drawn(seed):
    """Return (objective, theta, rng) from a seed. The network may lack biases or have skip
    connections, l2 may exempt biases, samples may have weights, and columns of X have scales from
    0.01 to 100.
    """
    rng = np.random.default_rng(seed)
    loss = KERNELS[seed % 3]
    sizes = [int(rng.integers(1, 7)) for _ in range(int(rng.integers(2, 6)))]
    if rng.random() < 0.4:
        sizes[1:-1] = [sizes[0]] * len(sizes[1:-1])
    sizes[-1] += loss == "cross_entropy"
    N = int(rng.integers(1, 40))
    names = [str(rng.choice(ACTIVATIONS)) for _ in sizes[1:-1]]
    options = {"bias": bool(rng.random() < 0.7), "residual": bool(rng.random() < 0.5)}
    model = fc.MLP(sizes, names, **options)
    X = rng.standard_normal((N, sizes[0])) * 10.0 ** rng.uniform(-2, 2, sizes[0])
    y = rng.random((N, sizes[-1]))
    y = rng.integers(sizes[-1], size=N) if loss == "cross_entropy" else y
    weight = rng.exponential(size=N) if rng.random() < 0.3 else None
    spared = bool(rng.random() < 0.5)
    ob = fc.Objective(model, X, y, loss, l2=0.1, l2_biases=spared, sample_weight=weight)
    return ob, model.init(rng=seed) * 10.0 ** rng.uniform(-1, 0.7), rng


def exact(ob, theta, kind="hessian"):
    truth = Truth(ob, theta)
    return np.stack([truth.product(e, kind) for e in np.eye(len(theta))], axis=1)


@pytest.mark.parametrize("kind", ["hessian", "ggn"])
@pytest.mark.parametrize("seed", range(30))
def test_the_matrix_lies_within_its_bounds(seed, kind, monkeypatch):
    """The Hessian or Gauss-Newton matrix that is assembled layer by layer differs from that in long
    double by at most its bounds, in norm, by entries and in units of the parameters over six
    decades, also with samples in several blocks.
    """
    ob, theta, rng = drawn(seed)
    if seed % 2:
        monkeypatch.setattr(
            "fastcurv.certify.dense_hessian.rows_per_hessian_block", lambda model: 7
        )
    known = EnclosedHessian(ob, passes_at(ob, theta), kind)
    E = (known.A - exact(ob, theta, kind)).astype(float)
    assert known.finite and np.array_equal(known.A, known.A.T)
    assert np.linalg.norm(E) <= known.error_bound()
    assert (np.abs(E) <= known.entry_error_bounds()).all()
    d = 10.0 ** rng.uniform(-3, 3, len(theta))
    assert np.linalg.norm(d[:, None] * E * d) <= known.error_bound(d)
    assert known.error_bound() <= 1e-5 * np.linalg.norm(known.A) + 1e-300


def test_the_bounds_of_the_matrix_include_underflow():
    """Error bounds of the Hessian that is assembled layer by layer hold for tiny sample weights,
    for a saturated unit and for parameters near 1e-165, whose squares underflow.
    """
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((5, 2)), rng.standard_normal((5, 2))

    def check_bounds_of(model, theta, **options):
        ob = fc.Objective(model, X, y, "mse", **options)
        known = EnclosedHessian(ob, passes_at(ob, theta))
        E = known.A - exact(ob, theta)
        sizes = np.sqrt((E * E).sum(axis=0))
        scale = 10.0 ** rng.uniform(-3, 3, len(theta))
        assert known.finite and sizes.any()
        assert np.sqrt((sizes**2).sum()) <= known.error_bound()
        assert np.sqrt(((scale[:, None] * E * scale) ** 2).sum()) <= known.error_bound(scale)
        assert known.error_bound() <= 1e-9 * np.sqrt((known.A.astype(np.longdouble) ** 2).sum())

    model = fc.MLP([2, 3, 2], "tanh")
    check_bounds_of(model, model.init(rng=0), sample_weight=1e-170 * rng.exponential(size=5))
    model = fc.MLP([2, 1, 2], "softplus")
    theta = model.init(rng=0)
    theta[2] = -400.0  # the bias that saturates the only hidden unit
    check_bounds_of(model, theta)
    check_bounds_of(fc.MLP([2, 3, 2], "relu"), 1e-165 * rng.standard_normal(17))


def test_classify_and_inertia_use_the_assembled_matrix(rng):
    """If all samples are in memory, `classify` and `inertia` use the Hessian that is assembled
    layer by layer.
    """
    model = fc.MLP([12, 20, 12, 3], "tanh")
    X, y = rng.standard_normal((90, 12)), rng.integers(3, size=90)
    ob = fc.Objective(model, X, y, "cross_entropy", l2=1e-2)
    theta = fc.minimize(ob, model.init(rng=0), "newton-cg", max_iter=60, verdict=False).x
    # a critical point, also if `minimize` stopped before
    theta = fc.find_critical_point(ob, theta).x
    H = ob.hessian(theta)
    M = dense_matrix(H)
    assert M.n_products == H.n_products == 0 and not M.asymmetry.any()
    assert np.linalg.norm(M.A - H.to_dense()) <= 2 * M.error_bound() <= 1e-9
    said = fc.classify(ob, theta)
    assert said.kind == "minimum" and said.certified
    assert fc.inertia(H).n_positive == model.n_params


def test_unsuitable_objectives_have_no_assembled_matrix(rng):
    """`assembled` returns None for the empirical Fisher matrix, batch normalisation and
    overflow.
    """
    X, y = rng.standard_normal((5, 700)), rng.standard_normal((5, 1))

    def assembled_matrix(model, X=X, dtype="float64", kind="hessian"):
        ob = fc.Objective(model, X, y, "mse").astype(dtype)
        return assembled(getattr(ob, kind)(model.init(rng=0)))

    assert assembled_matrix(fc.MLP([700, 1])) is not None
    wide = fc.MLP([20, 30, 1])
    assert assembled_matrix(wide, X[:, :20]) is not None
    assert assembled_matrix(wide, X[:, :20], "float32") is not None
    assert assembled_matrix(wide, X[:, :20], kind="empirical_fisher") is None
    assert assembled_matrix(fc.MLP([20, 30, 1], batch_norm=True), X[:, :20]) is None
    huge = fc.Objective(wide, 1e200 * X[:, :20], y, "mse")
    assert assembled(huge.hessian(1e150 * wide.init(rng=0))) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_bounds_hold_for_rows_of_the_jacobian(dtype):
    """The bound on each row of the assembled Jacobian holds against a backward pass in long
    double.
    """
    rng = np.random.default_rng(4)
    nets = [([4, 6, 6, 2], "gelu"), ([300, 5, 2], "relu"), ([3, 2], ())]
    for depth in (2, 3, 4, 6) * 3:
        widths = rng.integers(1, 9, depth) if rng.random() < 0.5 else np.full(depth, 5)
        acts = rng.choice(list(engine.ACTIVATIONS), depth).tolist()
        nets.append(([5, *widths.tolist(), 2], acts))
    for sizes, act in nets:
        model = fc.MLP(sizes, activation=act, residual=True, dtype=dtype)
        X = rng.standard_normal((5, sizes[0]))
        ob = fc.Objective(model, X, rng.random((5, 2)), loss="mse", sample_weight=rng.random(5))
        theta = model.init(rng=3) * np.dtype(dtype).type(2 if len(sizes) > 5 else 1)
        J, truth = ob.jacobian(theta), Truth(ob, theta)
        dense, bounds = assembled(J)
        assert bounds.shape == (10,)
        for u, row, bound in zip(np.eye(10, dtype=dtype), dense, bounds):
            error = float(size(row - truth.backward(u.reshape(5, 2))[0]))
            assert error <= bound * (1 + ORACLE / np.finfo(float).eps)
        assert bounds.max() < 1e9 * np.finfo(float).eps


@pytest.mark.parametrize("seed", range(3))
def test_eigenvalues_of_float32_lie_within_the_bound(seed):
    rng = np.random.default_rng(seed)
    for _ in range(20):
        sizes = rng.integers(1, 4, int(rng.integers(2, 5))).tolist()
        act = str(rng.choice(list(engine.ACTIVATIONS)))
        model = fc.MLP(sizes, activation=act, bias=bool(rng.random() < 0.5), dtype="float32")
        X = rng.standard_normal((5, sizes[0]))
        loss = str(rng.choice(list(engine.LOSSES)))
        ob = fc.Objective(model, X, rng.random((5, sizes[-1])), loss=loss)
        theta = model.init(rng=rng)
        theta[rng.random(theta.size) < rng.choice([0, 0.5])] = 0
        exact = ob.astype("float64").hessian(theta.astype(float)).to_dense()
        found = fc.inertia(ob.hessian(theta))
        assert np.abs(found.values - np.linalg.eigvalsh(exact)).max() <= found.error_bound
