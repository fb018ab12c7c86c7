"""The short way of a single product, and what must not take it."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.reference import ReferenceModel, ReferenceObjective
from fastcurv.structure.parameters import l2_diagonal


def hessian(dtype="float64", sizes=(3, 5, 2), l2=0.1):
    rng = np.random.default_rng(0)
    ob = fc.Objective(
        fc.MLP(list(sizes), activation="tanh", dtype=dtype),
        rng.standard_normal((9, sizes[0])),
        rng.standard_normal((9, sizes[-1])),
        loss="mse",
        l2=l2,
    )
    return ob.hessian(ob.model.init(seed=0))


def misaligned(v):
    raw = np.zeros(v.nbytes + 1, np.uint8)
    view = raw[1:].view(v.dtype)
    view[...] = v
    return view


@pytest.mark.parametrize("kind", ["hessian", "ggn", "empirical_fisher"])
def test_every_way_to_multiply_gives_the_same_bits_and_counts_once(dtype, kind):
    H = hessian(dtype)
    H = getattr(H.objective, kind)(H.theta)
    v = np.random.default_rng(1).standard_normal(H.shape[0]).astype(dtype)
    wanted = np.empty_like(v)
    H._plan.multiply(v, wanted, H.kind, None, H.kind != "fisher")
    held = v.copy()
    wide = np.zeros((len(v), 3), dtype)
    wide[:, 1] = v
    frozen = v.copy()
    frozen.flags.writeable = False
    ways = {
        "as it is": v,
        "read-only": frozen,
        "strided": wide[:, 1],
        "reversed": v[::-1].copy()[::-1],
        "big-endian": v.astype(v.dtype.newbyteorder(">")),
        "misaligned": misaligned(v),
        "list": v.tolist(),
        "wider": v.astype(np.float64),
    }
    for name, given in ways.items():
        if name == "list":
            given = np.array(given)
        for product in (H.__matmul__, H.product, H.matvec):
            before = H.n_products
            assert np.array_equal(product(given), wanted), (name, product)
            assert H.n_products == before + 1
    assert np.array_equal(v, held)


def test_out_is_written_and_returned_and_may_share_memory_with_v():
    H = hessian()
    n = H.shape[0]
    v = np.random.default_rng(1).standard_normal(n)
    wanted = H @ v
    out = np.empty(n)
    assert H.product(v, out) is out
    assert np.array_equal(out, wanted)
    same = v.copy()
    assert np.array_equal(H.product(same, same), wanted)
    memory = np.empty(n + 1)
    memory[:n] = v
    assert np.array_equal(H.product(memory[:n], memory[1:]), wanted)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda out: out[:-1],
        lambda out: out.astype(np.float32),
        lambda out: np.zeros((len(out), 2))[:, 0],
        lambda out: out.astype(">f8"),
        misaligned,
        lambda out: np.frombuffer(out.tobytes()),
        lambda out: out.tolist(),
        lambda out: np.ma.array(out),
    ],
)
def test_an_out_that_does_not_fit_is_refused_in_one_sentence_and_nothing_is_counted(spoil):
    H = hessian()
    out = spoil(np.zeros(H.shape[0]))
    if isinstance(out, np.ma.MaskedArray):
        assert H.product(np.ones(H.shape[0]), out) is out  # no mask, so an array as any other
        return
    before = H.n_products
    with pytest.raises(ValueError, match="wanted a writeable contiguous aligned float64 array"):
        H.product(np.ones(H.shape[0]), out)
    assert H.n_products == before


def test_a_vector_of_length_one_and_a_net_of_one_parameter():
    ob = fc.Objective(fc.MLP([1, 1], bias=False), [[2.0]], [1.0], loss="mse")
    H = ob.hessian(np.zeros(1))
    assert np.array_equal(H @ np.ones(1), [8.0])
    assert np.array_equal(H @ np.ones((3, 1))[::3, 0], [8.0])


@pytest.mark.parametrize("n_rows", [1, 15, 16, 17, 100, 127, 128, 129, 200, 500])
def test_a_net_served_by_one_thread_is_right_whatever_its_rows(dtype, n_rows):
    rng = np.random.default_rng(n_rows)
    model = fc.MLP([2, 6, 1], activation="tanh", dtype=dtype)
    X, y = rng.standard_normal((n_rows, 2)), rng.standard_normal(n_rows)
    ob = fc.Objective(model, X, y, loss="mse", n_threads=2)
    theta = model.init(seed=0)
    H, v = ob.hessian(theta), rng.standard_normal(ob.n_params).astype(dtype)
    X, y = X.astype(dtype).astype(float), y.astype(dtype).astype(float)
    reference = ReferenceObjective(ReferenceModel([2, 6, 1]), X, y, loss="mse")
    wanted = reference.hessian(theta.astype(float)) @ v.astype(float)
    scale = np.abs(wanted).max()
    assert np.abs(H @ v - wanted).max() < 200 * np.finfo(dtype).eps * scale


@pytest.mark.parametrize("at", [0, 65535, 65536, 65537, 150_000])
@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
def test_a_long_theta_with_one_number_that_is_none_is_refused(dtype, at, what):
    model = fc.MLP([300, 500, 1], dtype=dtype)
    ob = fc.Objective(model, np.ones((2, 300)), [0.0, 1.0], loss="mse", n_threads=2)
    theta = model.init(seed=0)
    value = ob.value(theta)
    theta[at] = what
    for call in (ob.value, ob.gradient, ob.hessian, ob.ggn):
        with pytest.raises(ValueError, match="theta"):
            call(theta)
    assert ob.value(model.init(seed=0)) == value


def test_theta_whose_squares_overflow_is_taken_and_stays_the_callers(dtype):
    model = fc.MLP([2, 1], bias=False, dtype=dtype)
    ob = fc.Objective(model, [[1.0, -1.0]], [0.0], loss="mse")
    large = np.sqrt(np.finfo(dtype).max) * 4
    theta = np.array([large, large], dtype)
    H = ob.hessian(theta)
    assert ob.value(theta) == 0
    theta[:] = 0
    assert (H.theta == large).all()


@pytest.mark.parametrize("spared", [True, False])
def test_l2_of_a_long_theta_by_parts(spared):
    model = fc.MLP([300, 700, 3])
    X, y = np.zeros((2, 300)), np.zeros((2, 3))
    rng = np.random.default_rng(0)
    theta, v = rng.standard_normal((2, model.n_params))
    results = []
    for threads in (1, 2, 7):
        ob, plain = (
            fc.Objective(model, X, y, "mse", l2=l2, n_threads=threads, l2_biases=not spared)
            for l2 in (0.3, 0.0)
        )
        (value, gradient), H = ob.value_and_gradient(theta), ob.hessian(theta)
        results.append((value, gradient.tobytes(), (H @ v).tobytes()))
        taken = np.broadcast_to(np.asarray(l2_diagonal(ob)), theta.shape)
        bare_value, bare_gradient = plain.value_and_gradient(theta)
        assert value == pytest.approx(bare_value + 0.5 * np.sum(taken * theta**2), rel=1e-13)
        assert np.allclose(gradient, bare_gradient + taken * theta, rtol=1e-13, atol=1e-13)
        assert np.allclose(H @ v, plain.hessian(theta) @ v + taken * v, rtol=1e-13, atol=1e-12)
    assert results[0] == results[1] == results[2]
