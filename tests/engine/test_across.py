"""Samples across or as rows: two layouts of a tall plan's panels, one mathematics."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine as engine

from ..plans import laid_out, least_memory

NETS = [  # sizes, rows, activation, loss, residual
    ((5, 7, 3), 50, "tanh", "cross_entropy", False),
    ((2, 16, 16, 1), 100, "softplus", "mse", False),
    ((20, 100, 2), 333, "relu", "binary_cross_entropy", False),
    ((1, 20, 1), 17, "sigmoid", "mse", False),
    ((3, 2), 9, "identity", "cross_entropy", False),
    ((6, 20, 20, 20, 19), 133, "gelu", "cross_entropy", True),
    ((33, 17, 17, 2), 65, "leaky_relu", "mse", True),
]
WIDE = [
    ((40, 130, 70, 12), 200, "tanh", "cross_entropy", False),
    ((33, 81, 1), 77, "sigmoid", "binary_cross_entropy", False),
]


@pytest.fixture
def lines():
    """Sets the lines of a panel for plans made from then on."""
    with laid_out():
        yield engine.force_across


def everything(net, dtype, memory=None, n_threads=2):
    """All that the passes make, as one list of arrays, and the layout it was made with."""
    sizes, rows, activation, loss, residual = net
    rng = np.random.default_rng(5)
    model = fc.MLP(sizes, activation=activation, dtype=dtype, residual=residual)
    theta = model.init(seed=0)
    theta += (0.1 * rng.standard_normal(theta.shape)).astype(dtype)
    X, V = (
        rng.standard_normal((rows, sizes[0])),
        rng.standard_normal((model.n_params, 3)).astype(dtype),
    )
    targets = {
        "mse": rng.standard_normal((rows, sizes[-1])),
        "binary_cross_entropy": rng.random((rows, sizes[-1])),
        "cross_entropy": rng.integers(sizes[-1], size=rows),
    }
    ob = fc.Objective(
        model,
        X,
        targets[loss],
        loss=loss,
        l2=0.01,
        sample_weight=rng.random(rows),
        memory=memory,
        n_threads=n_threads,
    )
    H, G, F, J = ob.hessian(theta), ob.ggn(theta), ob.empirical_fisher(theta), ob.jacobian(theta)
    top = H.restrict(layers=[len(sizes) - 2])
    return [
        np.array([ob.value(theta)]),
        ob.gradient(theta),
        H @ V[:, 0],
        H @ V,
        H.quadratic(V),
        G @ V,
        G.quadratic(V),
        F @ V,
        J @ V[:, 0],
        J.T @ rng.standard_normal(J.shape[0]).astype(dtype),
        model.predict(theta, X),
        top @ np.ones(top.shape[0], dtype),
    ], H.layout


@pytest.mark.parametrize("net", NETS, ids=lambda net: "-".join(map(str, net[0])))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_layouts_agree(arch, net, dtype, lines):
    """Everything that passes over rows make, for panels of one line, of a few, and larger than the
    data.
    """
    lines(0)
    expected, _ = everything(net, dtype)
    for count in (1, 3, 25):
        lines(count)
        got, layout = everything(net, dtype)
        assert layout["panel"] % (64 // np.dtype(dtype).itemsize) == 0
        for i, (x, y) in enumerate(zip(got, expected)):
            assert np.linalg.norm(x - y) <= (
                1e-11 if dtype == "float64" else 3e-4
            ) * np.linalg.norm(y), (count, i)


@pytest.mark.parametrize("net", NETS + WIDE, ids=lambda net: "-".join(map(str, net[0])))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_panel_for_all_threads(arch, net, dtype, lines):
    """Products of one panel, cut into items: what samples as rows give, the same bits for any
    number of threads.
    """
    lines(0)
    expected, _ = everything(net, dtype)
    lines(1, shared=True)
    got, layout = everything(net, dtype, n_threads=1)
    assert layout["panel"] >= net[1]
    for i, (x, y) in enumerate(zip(got, expected)):
        assert np.linalg.norm(x - y) <= (1e-11 if dtype == "float64" else 3e-4) * np.linalg.norm(
            y
        ), i
    for threads in (2, 5):
        more, _ = everything(net, dtype, n_threads=threads)
        assert all(np.array_equal(a, b) for a, b in zip(got, more))


@pytest.mark.parametrize("wide, dtype, panels", [
    ((300, 512, 400, 10), "float64", {64: 64, 60: 64, 33: 40, 9: 16, 5: 8, 600: 0}),
    ((300, 512, 400, 10), "float32", {64: 64, 36: 48, 22: 32, 18: 0, 9: 0, 600: 0}),
    ((1100, 1600, 2), "float32", {18: 32, 9: 16, 600: 0}),
])  # fmt: skip
def test_few_rows_of_a_wide_net(wide, dtype, panels):
    """They share one panel, in float32 where they fill most of its lines or the net is large; many
    are rows.
    """
    if engine.chosen_arch() in ("blas", "reference"):
        pytest.skip("no vectors")
    model = fc.MLP(wide, dtype=dtype)
    for rows, panel in panels.items():
        X = np.ones((rows, wide[0]), dtype)
        ob = fc.Objective(model, X, np.zeros(rows, int), loss="cross_entropy")
        assert ob.hessian(np.zeros(model.n_params)).layout["panel"] == panel


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("net", NETS[2:4], ids=lambda net: "-".join(map(str, net[0])))
def test_threads_and_blocks_change_no_bit(net, shared, lines):
    """A column of a block is the single product, for any number of threads."""
    lines(2, shared=shared)
    one, _ = everything(net, "float32", n_threads=1)
    two, _ = everything(net, "float32", n_threads=3)
    assert all(np.array_equal(a, b) for a, b in zip(one, two))
    assert np.array_equal(one[2], one[3][:, 0])


def test_chunks(lines):
    """Bounded memory: the state is made again chunk by chunk, and the bound holds."""
    lines(1)
    whole, _ = everything(NETS[2], "float64")
    least = least_memory(lambda memory: everything(NETS[2], "float64", memory))
    for memory in (least, least + 50_000):
        got, layout = everything(NETS[2], "float64", memory)
        assert layout["chunk"] < NETS[2][1]
        for x, y in zip(got, whole):
            assert np.linalg.norm(x - y) <= 1e-12 * np.linalg.norm(y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy", "cross_entropy"])
@pytest.mark.parametrize("d_out", [3, 8, 16, 33])
@pytest.mark.parametrize("N", [7, 35])
def test_targets_of_many_outputs_where_samples_lie_across(arch, N, d_out, loss, dtype, lines):
    """They are turned in squares, with what is left over at both edges; rows may lie apart."""
    rng = np.random.default_rng(N + d_out)
    y = rng.random((N, 2 * d_out)).astype(dtype)
    y /= y[:, :d_out].sum(axis=1, keepdims=True)
    X = rng.standard_normal((N, 2)).astype(dtype)
    model = fc.MLP([2, 5, d_out], dtype=dtype)
    theta = model.init(seed=0)
    found = []
    for each in (0, 2):
        lines(each)
        ob = fc.Objective(model, X, y[:, :d_out], loss)
        found.append((*ob.value_and_gradient(theta), ob.hessian(theta) @ theta))
    for rows, across in zip(*found):
        np.testing.assert_allclose(across, rows, rtol=0, atol=2e-5 if dtype == "float32" else 1e-13)
