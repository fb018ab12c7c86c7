"""What goes in may lie anyhow, is never changed, and what it holds comes out: casts, strides,
read-only maps, overlap, NaN.
"""

import re
import warnings
from inspect import signature

import numpy as np
import pytest

from fastcurv import MLP, Objective, StreamedObjective

NETS = {
    "tiny": {"sizes": [3, 5, 2], "activation": "tanh", "loss": "mse", "N": 9},
    "tall": {
        "sizes": [33, 31, 31, 7],
        "activation": ["relu", "gelu"],
        "loss": "cross_entropy",
        "N": 200,
        "residual": True,
    },
    "wide": {
        "sizes": [129, 130, 130, 257, 33],
        "activation": "sigmoid",
        "loss": "binary_cross_entropy",
        "N": 33,
        "residual": True,
    },
}
every_net = pytest.mark.parametrize("net", NETS)


@pytest.fixture
def drawn(rng, problem):
    def draw(net, dtype="float64"):
        p = problem(rng, **NETS[net], weights=True, l2=0.01, dtype=dtype)
        p.V = rng.standard_normal((p.n, 5)).astype(dtype)
        p.v = np.ascontiguousarray(p.V[:, 0])
        return p

    return draw


def shapes_of(v, tmp_path):
    """The same numbers as v in other places."""
    n = v.size
    file = np.memmap(tmp_path / "v", v.dtype, "w+", shape=(n,))
    file[:] = v
    file.flush()
    read_only = v.copy()
    read_only.flags.writeable = False
    odd = np.zeros(v.nbytes + 1, np.uint8)[1:].view(v.dtype)
    odd[:] = v
    yield "strided", np.repeat(v, 3)[::3]
    yield "reversed", v[::-1].copy()[::-1]
    yield "misaligned", odd
    yield "read-only", read_only
    yield "memory-mapped", np.memmap(tmp_path / "v", v.dtype, "r", shape=(n,))
    yield "big-endian", v.astype(v.dtype.newbyteorder(">"))
    yield "a list", v.tolist()
    yield "a column of a block", np.stack([v, v], 1)[:, 1]


@every_net
def test_any_strides(net, dtype, drawn, tmp_path):
    """The same bits wherever v, V and theta lie, and none of them is modified."""
    p = drawn(net, dtype)
    H = p.ob.hessian(p.theta)
    product, block, gradient = H @ p.v, H @ p.V, H.gradient.copy()
    for name, v in shapes_of(p.v, tmp_path):
        before = np.array(v)
        assert np.array_equal(H.matvec(v), product), name
        assert np.array_equal(H.product(v), product), name
        assert np.array_equal(p.ob.hessp(p.theta, v), product), name
        assert H.quadratic(v) == H.quadratic(p.v), name
        assert np.array_equal(np.array(v), before), name
    for name, theta in shapes_of(p.theta, tmp_path):
        before = np.array(theta)
        assert np.array_equal(p.ob.gradient(theta), gradient), name
        assert np.array_equal(p.ob.hessian(theta) @ p.v, product), name
        assert np.array_equal(p.model.predict(theta, p.X), p.model.predict(p.theta, p.X)), name
        assert np.array_equal(np.array(theta), before), name
    for V in (
        np.asfortranarray(p.V),
        np.repeat(p.V, 2, axis=1)[:, ::2],
        p.V[::-1].copy()[::-1],
        p.V.tolist(),
    ):
        before = np.array(V)
        assert np.array_equal(H.matmat(np.asarray(V)), block) and np.array_equal(
            H.quadratic(V), H.quadratic(p.V)
        )
        assert np.array_equal(np.array(V), before)


def test_other_dtypes_are_cast(dtype, drawn, rng):
    """Numbers that fit are the same numbers, in any real dtype."""
    p = drawn("tall", dtype)
    H = p.ob.hessian(p.theta)
    v = rng.integers(0, 2, p.n)
    product = H @ v.astype(dtype)
    for kind in (
        np.float16,
        np.float32,
        np.float64,
        np.longdouble,
        np.int8,
        np.int64,
        np.uint16,
        bool,
    ):
        assert (H @ v.astype(kind)).dtype == dtype
        assert np.array_equal(H @ v.astype(kind), product)
        assert np.array_equal(H.product(v.astype(kind)), product)
        assert np.array_equal((H @ np.stack([v, v], 1).astype(kind))[:, 1], product)
    X = rng.integers(-3, 4, (20, 3))
    y, model = rng.integers(0, 2, 20), MLP([3, 4, 2], dtype=dtype)
    theta = model.init(seed=0)
    gradient = Objective(model, X.astype(dtype), y).gradient(theta)
    for kind in (np.float16, np.int8, np.int64, np.longdouble):
        for labels in (np.uint8, np.int16, np.int64):
            assert np.array_equal(
                Objective(model, X.astype(kind), y.astype(labels)).gradient(theta), gradient
            )
    assert p.ob.value(p.theta.astype(np.longdouble)) == p.ob.value(p.theta)
    assert H.astype("float32").dtype == np.float32 and H.astype(dtype) is H


def test_data_may_lie_anyhow(dtype, rng, tmp_path):
    """X, y and weights strided, reversed, read-only, mapped from a file, broadcast: one gradient,
    nothing modified.
    """
    model = MLP([5, 4, 3], dtype=dtype)
    theta, N = model.init(seed=0), 40
    X, Y = rng.standard_normal((N, 5)).astype(dtype), rng.standard_normal((N, 3)).astype(dtype)
    w = rng.random(N).astype(dtype)
    true = Objective(model, X, Y, "mse", sample_weight=w).gradient(theta)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for other in (
        mapped,
        np.asfortranarray(X),
        np.repeat(X, 2, 0)[::2],
        np.repeat(X, 2, 1)[:, ::2],
        X[::-1].copy()[::-1],
        X.tolist(),
        X.astype(np.dtype(dtype).newbyteorder()),
    ):
        assert np.array_equal(
            Objective(model, other, Y, "mse", sample_weight=w).gradient(theta), true
        )
    for other in (
        np.asfortranarray(Y),
        np.repeat(Y, 2, 0)[::2],
        Y[::-1].copy()[::-1],
        Y[:, ::-1].copy()[:, ::-1],
        Y.tolist(),
    ):
        assert np.array_equal(
            Objective(model, X, other, "mse", sample_weight=np.repeat(w, 2)[::2]).gradient(theta),
            true,
        )
    same = np.broadcast_to(X[0], X.shape)
    assert np.array_equal(
        Objective(model, same, Y, "mse").gradient(theta),
        Objective(model, same.copy(), Y, "mse").gradient(theta),
    )
    keep = [X.copy(), Y.copy(), w.copy(), theta.copy()]
    for array in (X, Y, w, theta):
        array.flags.writeable = False
    H = Objective(model, X, Y, "mse", sample_weight=w, l2=0.1).hessian(theta)
    H @ H.gradient, H.quadratic(H.gradient)
    assert all(np.array_equal(a, b) for a, b in zip(keep, (X, Y, w, theta)))


@every_net
def test_out_may_overlap_v(net, drawn):
    """product(v, out=) where both are parts of one array, or the same one."""
    p = drawn(net)
    H = p.ob.hessian(p.theta)
    true = H @ p.v
    for shift in (0, 1, 7):
        buffer = np.zeros(p.n + 7)
        v, out = buffer[: p.n], buffer[shift : p.n + shift]
        v[:] = p.v
        assert H.product(v, out=out) is out
        assert np.array_equal(out, true)
        block = H.restrict(layers=[0])
        m = block.shape[0]
        part = block @ p.v[:m]
        v[:] = p.v
        block.product(buffer[:m], out=buffer[shift : m + shift])
        assert np.array_equal(buffer[shift : m + shift], part)


@every_net
@pytest.mark.parametrize("what", [np.nan, np.inf])
def test_nan_goes_through(arch, net, dtype, what, drawn):
    """NaN or infinity in v shows in the product and in the form; other columns, and later products,
    have their old bits.
    """
    p = drawn(net, dtype)
    H = p.ob.hessian(p.theta)
    product, block, form = H @ p.v, H @ p.V, H.quadratic(p.V)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for place in (0, p.n // 2, p.n - 1):
            V = p.V.copy()
            V[place, 2] = what
            spoilt = H @ V
            assert not np.isfinite(spoilt[place, 2]) and not np.isfinite(H @ V[:, 2])[place]
            assert not np.isfinite(H.quadratic(V[:, 2]))
            clean = np.arange(5) != 2
            assert np.array_equal(spoilt[:, clean], block[:, clean])
            forms = H.quadratic(V)
            assert not np.isfinite(forms[2]) and np.array_equal(forms[clean], form[clean])
            assert np.array_equal(H @ p.v, product)
            assert np.array_equal(p.ob.hessp(p.theta, p.v), product)


def test_zero_in_zero_out(arch, dtype, drawn):
    p = drawn("tall", dtype)
    H = p.ob.hessian(p.theta)
    assert not (H @ np.zeros(p.n)).any() and H.quadratic(np.zeros((p.n, 3))).tolist() == [0, 0, 0]
    assert (H @ np.zeros((p.n, 0))).shape == (p.n, 0) and H.quadratic(np.zeros((p.n, 0))).shape == (
        0,
    )
    assert (H @ np.ones((p.n, 1))).shape == (p.n, 1)


def test_scales_far_from_one(arch, dtype, drawn):
    """Products are homogeneous down to tiny v and up to huge ones: nothing overflows or is flushed
    on the way.
    """
    p = drawn("tall", dtype)
    H = p.ob.hessian(p.theta)
    true = H @ p.v
    for power in (-80, 80) if dtype == "float32" else (-900, 900):
        scale = np.array(2.0, dtype) ** power
        product = (H @ (scale * p.v)) / scale
        assert np.linalg.norm(product - true) <= 4 * np.finfo(dtype).eps * np.linalg.norm(true)


def test_the_signature_of_an_objective_is_what_it_takes():
    wanted = ["model", "X", "y", "loss", "l2", "sample_weight", "n_threads", "memory", "l2_biases"]
    assert list(signature(Objective).parameters) == wanted
    streamed = list(signature(StreamedObjective).parameters)
    assert streamed[: len(wanted)] == wanted and "block_rows" in streamed


@pytest.mark.parametrize("scheme", ["he", "xavier", "lecun", "auto"])
def test_the_spread_that_a_scheme_gives_its_weights(scheme):
    """He 2 / in, Glorot 2 / (in + out), LeCun 1 / in; auto by what comes after the layer."""
    model = MLP([200, 300, 50, 100], ["relu", "tanh"])
    shares = {"he": lambda m, k: 2 / k, "xavier": lambda m, k: 2 / (m + k)}
    shares["lecun"] = lambda m, k: 1 / k
    auto = ["he", "xavier", "xavier"]
    for (W, b), name in zip(model.unflatten(model.init(seed=3, scheme=scheme)), auto):
        variance = shares[name if scheme == "auto" else scheme](*W.shape)
        spread = 6 * (2 / W.size) ** 0.5  # of a variance that is measured, at six sigma
        assert abs(W.var() / variance - 1) <= spread < 0.13 and not b.any()


@pytest.mark.parametrize("what", ["value", "gradient", "value_and_gradient", "hessian", "ggn"])
def test_a_theta_of_the_right_length_in_other_axes(what, rng):
    """Whichever question is the first: a row of parameters is none."""
    model = MLP([3, 4, 2], "tanh")
    X, y, theta = rng.standard_normal((5, 3)), rng.standard_normal((5, 2)), model.init(seed=0)
    for given in (theta[None], theta[:, None], theta[0], np.stack([theta] * 2)):
        ob = Objective(model, X, y, "mse")
        with pytest.raises(ValueError, match=re.escape(str(given.shape))):
            getattr(ob, what)(given)
