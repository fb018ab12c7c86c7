"""How a plan lays out what it multiplies, samples across or as rows, W and V packed or read as they
lie: many layouts, one mathematics.
"""

import itertools

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine as engine

from .. import nets
from ..network import product_cases
from ..plans import laid_out, least_memory

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 2)

# sizes, rows, activation, loss, and other options
NETS = [
    ([5, 7, 3], 50, "tanh", "cross_entropy", {}),
    ([2, 16, 16, 1], 100, "softplus", "mse", {}),
    ([20, 100, 2], 333, "relu", "binary_cross_entropy", {}),
    ([1, 20, 1], 17, "sigmoid", "mse", {}),
    ([3, 2], 9, "identity", "cross_entropy", {}),
    ([6, 20, 20, 20, 19], 133, "gelu", "cross_entropy", {"residual": True}),
    ([33, 17, 17, 2], 65, "leaky_relu", "mse", {"residual": True}),
]
WIDE = [
    ([40, 130, 70, 12], 200, "tanh", "cross_entropy", {}),
    ([33, 81, 1], 77, "sigmoid", "binary_cross_entropy", {}),
]
FEW = [
    ([40, 130, 70, 12], 3, "tanh", "cross_entropy", {}),
    ([33, 81, 1], 1, "sigmoid", "binary_cross_entropy", {}),
    ([300, 17, 17, 5], 8, "gelu", "mse", {"residual": True}),
    ([5, 64, 128, 3], 4, "relu", "cross_entropy", {}),
    ([17000, 3, 2], 2, "softplus", "mse", {}),  # deeper than one chain of additions
    ([1, 1, 1], 1, "tanh", "mse", {}),
    ([9, 31, 31, 2], 27, "leaky_relu", "mse", {"residual": True}),
    ([20, 33, 17], 8, "tanh", "mse", {"bias": False}),  # nothing follows the last matrix
]
FOLDED = [  # one hidden layer whose phi' follows from phi, under three outputs or fewer
    ([1, 20, 1], 17, "tanh", "mse", {}),
    ([20, 100, 2], 333, "sigmoid", "binary_cross_entropy", {}),
    ([33, 17, 3], 65, "tanh", "cross_entropy", {}),
    ([5, 7, 1], 50, "sigmoid", "mse", {"bias": False}),
]
# How they are laid out: lines of a panel, one, a few, and more than there are rows; one panel for
# all threads, cut into items; nothing packed.
CASES = [(net, {"across": lines}) for net in NETS for lines in (1, 3, 25)]
CASES += [(net, {"across": 1, "shared": True}) for net in NETS + WIDE]
CASES += [(net, {"across": 0, "unpacked": 64}) for net in FEW]
CASES += [(net, {"across": lines, "folds": 1}) for net in FOLDED for lines in (1, 3, 25)]


def drawn(net, dtype, **options):
    sizes, rows, activation, loss, more = net
    how = {"weights": True, "l2": 0.01, "n_threads": 2, "dtype": dtype, **more, **options}
    return nets.draw(5, sizes, activation, loss, rows, **how)


def everything(net, dtype, **options):
    """All that the passes make, by name, and the layout it was made with."""
    p, rng = drawn(net, dtype, **options), np.random.default_rng(6)
    V, ob, theta = p.direction(rng, 3), p.ob, p.theta
    H, G = ob.hessian(theta), ob.ggn(theta)
    top = H.restrict(layers=[len(net[0]) - 2])
    more = {
        "V'GV": G.quadratic(V),
        "predict": p.model.predict(theta, p.X),
        "the last layer": top @ np.ones(top.shape[0], dtype),
    }
    return product_cases.everything(ob, theta, V) | more, H.layout


def agree(found, expected, room):
    for name, y in expected.items():
        assert np.linalg.norm(found[name] - y) <= room * np.linalg.norm(y), name


@pytest.mark.parametrize(
    "net, how", CASES, ids=["-".join([*map(str, net[0]), *map(str, how.values())])
                            for net, how in CASES]
)  # fmt: skip
def test_every_layout_agrees(arch, net, how, dtype):
    """With samples as packed rows, in all that the passes make; the same bits for any number of
    threads, and a column of a block is the single product.
    """
    with laid_out(across=0, unpacked=0):
        expected, _ = everything(net, dtype)
    with laid_out(**how):
        found, layout = everything(net, dtype, n_threads=1)
        more = [everything(net, dtype, n_threads=threads)[0] for threads in (2, 5)]
    agree(found, expected, 1e-11 if dtype == "float64" else 3e-4)
    assert all(np.array_equal(x, other[name]) for other in more for name, x in found.items())
    assert layout["folded"] == ("folds" in how and arch not in ("blas", "reference"))
    if "unpacked" in how:
        assert layout["panel"] == 0 or arch in ("blas", "reference")
    else:
        assert layout["panel"] % (64 // np.dtype(dtype).itemsize) == 0
        assert layout["panel"] >= net[1] or "shared" not in how
        assert np.array_equal(found["H @ v"], found["H @ V"][:, 0])


@pytest.mark.parametrize("wide, dtype, panels", [
    ((300, 512, 400, 10), "float64", {64: 64, 60: 64, 33: 40, 9: 16, 5: 8, 600: 0}),
    ((300, 512, 400, 10), "float32", {64: 64, 36: 48, 22: 32, 18: 0, 9: 0, 600: 0}),
    ((1100, 1600, 2), "float32", {18: 32, 9: 16, 600: 0}),
    ((64, 128, 64), "float64", {1: 0, 4: 0, 5: 8}),
    ((64, 128, 64), "float32", {1: 0, 8: 0, 9: 16}),
    ((2, 16, 16, 1), "float64", {1: 8}),
    ((2, 16, 16, 1), "float32", {1: 16}),
    # inputs of a panel would not stay near, unless rows leave as many lanes empty
    ((500, 12, 1), "float64", {600: 152}),
    ((7684, 12, 1), "float64", {600: 0}),
    ((7684, 12, 1), "float32", {600: 0}),
    ((7684, 3, 1), "float64", {600: 15}),
    # W and V are much to read twice; with more rows, two panels
    ((600, 400, 200, 5), "float32", {60: 64, 100: 112, 120: 64}),
    ((500, 300, 200, 5), "float32", {100: 64}),
    # what is kept of all rows is beyond the third-level cache; others without 64-byte vectors
    ((64, 32, 16, 10), "float64", {1797: 450, 16000: (160, 69)}),
    ((64, 32, 16, 10), "float32", {4000: 500, 30000: (320, 145)}),
])  # fmt: skip
def test_few_rows_of_a_wide_net(wide, dtype, panels):
    """They share one panel, in float32 where they fill most of its lines or the net is large; many
    are rows, and so are half a line of samples or fewer over parameters that fill some pages, and
    those of so many inputs that a panel's would not stay near; very many lie across again, in
    64-byte vectors.
    """
    if engine.chosen_arch() in ("blas", "reference"):
        pytest.skip("no vectors")
    if engine.chosen_arch() == "baseline" and (wide, dtype) == ((2, 16, 16, 1), "float64"):
        panels = {1: 1}  # of vectors of two lanes none would be empty
    model = fc.MLP(wide, dtype=dtype)
    for rows, panel in panels.items():
        X = np.ones((rows, wide[0]), dtype)
        ob = fc.Objective(model, X, np.zeros((rows, wide[-1])), loss="mse")
        wanted = panel if isinstance(panel, int) else panel[engine.chosen_arch() != "avx512"]
        assert ob.hessian(np.zeros(model.n_params)).layout["panel"] == wanted, rows


@pytest.mark.parametrize("net", [NETS[2], FOLDED[1]], ids=["", "folded"])
def test_chunks(net):
    """Bounded memory: the state is made again chunk by chunk, and the bound holds."""
    with laid_out(across=1, folds=1):
        whole, _ = everything(net, "float64")
        least = least_memory(lambda memory: everything(net, "float64", memory=memory))
        for memory in (least, least + 50_000):
            found, layout = everything(net, "float64", memory=memory)
            assert layout["chunk"] < net[1]
            agree(found, whole, 1e-12)


def folds_and_not(ask):
    """What is found where phi and phi' are kept in one number, and in two."""
    found = []
    for folds in (1, 0):
        with laid_out(across=3, folds=folds):
            found.append(ask())
    return found


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_folding_keeps_what_saturated_units_have_left(activation, dtype, rng):
    """Relative to itself: 1 - a^2 would be 0 or noise."""
    X = rng.choice([-1.0, 1.0], (70, 3)).astype(dtype) * rng.uniform(0.9, 1.1, (70, 1)).astype(
        dtype
    )
    model = fc.MLP([3, 4, 1], activation, bias=False, dtype=dtype)
    theta, v = np.ones(model.n_params, dtype), np.zeros(model.n_params, dtype)
    theta[:12], v[:12] = 12 if activation == "tanh" else 24, rng.uniform(0.5, 1, 12)
    folded, plain = folds_and_not(
        lambda: fc.Objective(model, X, np.ones((70, 1), dtype)).jacobian(theta) @ v
    )
    assert 0 < np.abs(plain).min() < np.finfo(dtype).eps
    np.testing.assert_allclose(folded, plain, rtol=100 * np.finfo(dtype).eps, atol=0)


def test_folded_states_make_the_same_gauss_newton_steps(rng):
    """Levenberg-Marquardt's matrix is made from a and phi' of all rows."""
    X, y = rng.standard_normal((90, 3)), rng.standard_normal((90, 2))
    ob = fc.Objective(fc.MLP([3, 6, 2], "sigmoid"), X, y)
    theta = ob.model.init(seed=0)
    folded, plain = folds_and_not(
        lambda: (
            fc.minimize(
                fc.Objective(ob.model, X, y),
                theta,
                "levenberg-marquardt",
                max_iter=4,
                verdict=False,
            ).x
        )
    )
    assert np.linalg.norm(folded - theta) > 0.1
    np.testing.assert_allclose(folded, plain, rtol=1e-9)


def test_folding_loses_no_nan():
    """As sums of huge numbers of either sign leave it: where it was, or everywhere."""
    if engine.chosen_arch() in ("blas", "reference"):
        pytest.skip("no vectors")
    X, model = np.ones((60, 2000), "float32"), fc.MLP([2000, 5, 1], "tanh", dtype="float32")
    X[7] = 3e38
    theta = model.init(seed=1)
    theta[4000:5000], theta[5000:6000] = 2, -2

    def ask():
        ob = fc.Objective(model, X, np.zeros((60, 1), "float32"), n_threads=1)
        ones, J = np.ones_like(theta), ob.jacobian(theta)
        assert np.isnan(ob.value(theta))
        found = (
            [op(theta) @ ones for op in (ob.hessian, ob.ggn, ob.empirical_fisher)]
            + [ob.gradient(theta), ob.hessian(theta).quadratic(ones), ob.ggn(theta).quadratic(ones)]
            + [J @ ones, J.T @ ones[:60]]
        )
        return [np.isnan(one) for one in found]

    folded, plain = folds_and_not(ask)
    assert all(np.all(one >= other) for one, other in zip(folded, plain))
    assert folded[-2].sum() == plain[-2].sum() == 1


def test_targets_of_many_outputs_where_samples_lie_across(arch, dtype):
    """They are turned in squares, with what is left over at both edges; rows may lie apart."""
    for loss, d_out, N in itertools.product(nets.LOSSES, [3, 8, 16, 33], [7, 35]):
        y = np.random.default_rng(N + d_out).random((N, 2 * d_out)).astype(dtype)
        y /= y[:, :d_out].sum(axis=1, keepdims=True)
        found = []
        for lines in (0, 2):
            with laid_out(across=lines):
                p = nets.draw(0, [2, 5, d_out], loss=loss, N=N, y=y[:, :d_out], dtype=dtype)
                found.append((*p.ob.value_and_gradient(p.theta), p.ob.hessian(p.theta) @ p.theta))
        for rows, across in zip(*found):
            np.testing.assert_allclose(
                across, rows, rtol=0, atol=2e-5 if dtype == "float32" else 1e-13
            )


@pytest.mark.parametrize("sizes", [(30, 41, 43), (5, 3, 2), (64, 64, 64), (301, 302, 303, 15)])
@pytest.mark.parametrize("chunks", [False, True])
def test_a_product_takes_the_place_of_its_vector(arch, sizes, dtype, chunks):
    """Of a block in place: the same bits as single products, whose vectors stay as they are; shared
    by two threads where the net is large; and where rows go in chunks, each of which asks for the
    vectors again.
    """
    net = (sizes, 4, "tanh", "mse", {"bias": False})
    with laid_out(across=0, unpacked=64):
        memory = None
        if chunks:
            memory = least_memory(
                lambda memory: (p := drawn(net, dtype, memory=memory)).ob.hessian(p.theta)
            )
        p = drawn(net, dtype, memory=memory)
        H, V = p.ob.hessian(p.theta), p.direction(np.random.default_rng(0), 3)
        before, block = V.copy(), H @ V
        assert not chunks or H.layout["chunk"] < 4
        assert np.array_equal(V, before)
        for j in range(3):
            assert np.array_equal(block[:, j], H @ np.ascontiguousarray(V[:, j]))
