"""Ways that few objectives go: identities taken off, rows picked from blocks, layers without
biases in sample space, sparse rows in another precision.
"""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg._interface import IdentityOperator

import fastcurv as fc
from fastcurv.network import gram_bounds
from fastcurv.network.rows import take_from
from fastcurv.network.sums import witnesses

RNG = np.random.default_rng(0)


def small(loss="mse", **model):
    rng = np.random.default_rng(1)
    net = fc.MLP([4, 5, 5, 2], **model)
    y = rng.integers(2, size=9) if loss == "cross_entropy" else rng.random((9, 2))
    return fc.Objective(net, rng.standard_normal((9, 4)), y, loss), net.init(seed=0)


def test_the_identity_is_taken_off_as_a_shift():
    ob, theta = small()
    H, v = ob.hessian(theta), RNG.standard_normal(ob.n_params)
    n = H.shape[0]
    for mu, other in [
        (1.0, IdentityOperator((n, n))),
        (2.5, 2.5 * IdentityOperator((n, n))),
        (0.5, 0.5 * sp.identity(n, format="csr")),
    ]:
        shifted = H - other
        assert np.allclose(shifted @ v, H @ v - mu * v, rtol=1e-13, atol=1e-13)
        assert shifted.n_products >= 0, "it stays one of ours"
    with pytest.raises(ValueError):
        H - IdentityOperator((n + 1, n + 1))
    with pytest.raises(ValueError):
        H - sp.identity(n + 1, format="csr")


def test_rows_of_a_jacobian_with_batch_norm_have_no_bound():
    ob, theta = small(batch_norm=True)
    assert np.isinf(ob.jacobian(theta).row_bounds()).all()
    ob, theta = small()
    assert ((bounds := ob.jacobian(theta).row_bounds()) > 0).all() and bounds.max() < 1e-12


def test_rows_picked_from_blocks_that_pass_by():
    X, y = np.arange(20.0).reshape(10, 2), np.arange(10)
    passed = []

    def blocks():
        for start in (0, 3, 6, 8):
            stop = {0: 3, 3: 6, 6: 8, 8: 10}[start]
            passed.append(start)
            yield X[start:stop], y[start:stop], None

    for rows in ([1, 1, 7], [9], [0, 4], [2, 3]):
        passed.clear()
        found = take_from(blocks(), np.array(rows))
        assert np.array_equal(found[0], X[rows]) and np.array_equal(found[1], y[rows])
        assert found[2] is None
        assert passed[-1] <= rows[-1], "no further than the last"


def test_rows_of_a_file_that_are_written_over_in_memory(tmp_path):
    """Copy on write: what was written counts, and stays; the file keeps its own."""
    X, y = RNG.standard_normal((50, 4)), RNG.random((50, 2))
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="c")
    mapped[3] = 7.0
    model = fc.MLP([4, 5, 2])
    theta = model.init(seed=0)
    streamed = fc.StreamedObjective(model, mapped, y, "mse", block_rows=8)
    whole = fc.Objective(model, np.where(np.arange(50)[:, None] == 3, 7.0, X), y, "mse")
    for _ in range(2):
        assert np.abs(streamed.gradient(theta) - whole.gradient(theta)).max() <= 1e-15
    assert (mapped[3] == 7).all() and np.array_equal(np.load(tmp_path / "X.npy"), X)


def test_weights_of_a_parquet_file_are_one_of_its_columns(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {name: arrow.array(RNG.random(20)) for name in ("a", "b", "y", "w")}
    parquet.write_table(arrow.table(columns), tmp_path / "rows.parquet")
    words = (fc.MLP([2, 3, 1]), tmp_path / "rows.parquet", "y", "mse")
    with pytest.raises(TypeError, match="sample_weight is a ndarray; wanted the name of a column"):
        fc.StreamedObjective(*words, sample_weight=np.ones(20))
    assert fc.StreamedObjective(*words, sample_weight="w").n_samples == 20


def test_a_batch_larger_than_memory_is_read_again():
    X, y = RNG.standard_normal((4000, 6)), RNG.random((4000, 2))
    model = fc.MLP([6, 8, 2])
    theta = model.init(seed=0)
    ob = fc.StreamedObjective(model, X, y, "mse", memory=500_000)
    rows = np.arange(0, 3900)
    part = ob.batch(rows)
    assert isinstance(part, fc.StreamedObjective) and part.n_samples == 3900
    whole = fc.Objective(model, X[rows], y[rows], "mse")
    assert np.abs(part.gradient(theta) - whole.gradient(theta)).max() <= 1e-15
    assert isinstance(ob.batch(rows[:20]), fc.Objective)


@pytest.mark.parametrize("bias", [True, False])
def test_sample_space_without_biases(bias):
    """The matrix there has the eigenvalues that are not those of directions out of reach."""
    rng = np.random.default_rng(2)
    model = fc.MLP([20, 12, 2], bias=bias)
    ob = fc.Objective(model, rng.standard_normal((3, 20)), rng.random((3, 2)), "mse")
    H = ob.hessian(model.init(seed=0))
    small = H.reduced("samples")
    exact, inside = (
        np.linalg.eigvalsh(H.to_dense()),
        np.linalg.eigvalsh(small @ np.eye(small.shape[0])),
    )
    size = np.abs(exact).max()
    assert len(inside) < len(exact)
    assert np.allclose(inside[[0, -1]], exact[[0, -1]], rtol=0, atol=1e-13 * size)
    E = np.stack([small.embed(e) for e in np.eye(len(inside))])
    assert np.allclose(E @ E.T, np.eye(len(inside)), atol=1e-13)
    assert np.allclose(np.stack([small.project(e[None])[0] for e in E]), np.eye(len(E)), atol=1e-13)


def test_reach_that_would_take_too_much(monkeypatch):
    rng = np.random.default_rng(2)
    model = fc.MLP([20, 12, 2])
    ob = fc.Objective(model, rng.standard_normal((3, 20)), rng.random((3, 2)), "mse")
    H = ob.hessian(model.init(seed=0))
    found = H.reach(10**6)
    assert found is not None and found.m + found.n_rest == H.shape[0]
    monkeypatch.setattr(gram_bounds, "MOST_BYTES", 8)
    assert H.reach(10**6) is None


def test_sparse_rows_in_another_precision():
    X = sp.random(30, 12, 0.3, format="csr", random_state=np.random.default_rng(0))
    for y in (RNG.random((30, 2)), RNG.integers(2, size=30)):
        loss = "mse" if y.ndim == 2 else "cross_entropy"
        ob = fc.Objective(fc.MLP([12, 5, 2]), X, y, loss, sample_weight=RNG.random(30))
        theta = ob.model.init(seed=0)
        H = ob.hessian(theta)
        assert H.astype("float64") is H and H.astype("float32").dtype == np.float32
        single = ob.astype("float32")
        assert single.y.dtype == (np.float32 if loss == "mse" else ob.y.dtype)
        g = ob.gradient(theta)
        assert np.abs(single.gradient(theta.astype("float32")) - g).max() <= 1e-6 * np.abs(g).max()
        assert np.array_equal(H.gradient, g) and np.array_equal(H.gradient, g)


def test_names_in_a_state_dict_that_are_no_layer():
    state = {"0.weight": np.ones((3, 2)), "0.bias": np.zeros(3), "0.running_mean": np.zeros(3)}
    with pytest.raises(ValueError, match="'0.running_mean' in the state dict"):
        fc.from_torch(state, activation="tanh")
    with pytest.raises(ValueError, match="'0.bias' in the state dict"):
        fc.from_torch({"0.bias": np.zeros(3), "0.weight": np.ones((3, 2))}, activation="tanh")


def test_no_rows_have_no_witnesses():
    assert witnesses(np.zeros((0, 3))).X.shape == (0, 3)


def test_a_vector_and_rows_of_them_in_output_space():
    """`embed` and `project` take either, and undo each other along eigenvectors."""
    rng = np.random.default_rng(2)
    ob = fc.Objective(fc.MLP([20, 12, 2]), rng.standard_normal((3, 20)), rng.random((3, 2)), "mse")
    G = ob.ggn(ob.model.init(seed=0))
    small = G.reduced("outputs")
    q, n = small.shape[0], G.shape[0]
    values, U = np.linalg.eigh(small @ np.eye(q))
    V = small.embed(U.T)
    assert V.shape == (q, n) and np.allclose(V @ V.T, np.eye(q), atol=1e-12)
    one = small.embed(U[:, -1])
    assert one.shape == (n,) and np.array_equal(one, V[-1])
    assert np.allclose(G @ one, values[-1] * one, atol=1e-12 * values[-1])
    back = small.project(one)
    assert back.shape == (q,) and small.project(V).shape == (q, q)
    assert np.array_equal(small.project(V)[-1], back)
    assert abs(back @ U[:, -1]) == pytest.approx(np.linalg.norm(back), rel=1e-12)
