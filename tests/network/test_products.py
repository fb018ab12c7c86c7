"""What a product promises besides its numbers: symmetry, the same bits, a memory bound, blocks, and
good manners with inputs.
"""

import copy
import inspect
import pickle

import numpy as np
import pytest
import scipy.optimize
from scipy.sparse.linalg import LinearOperator, eigsh, lobpcg, minres

import fastcurv as fc
from fastcurv import MLP, Objective
from fastcurv.common.checks import MatrixOperator
from fastcurv.testing import PrescribedSpectrum

from ..certify.longdouble import Truth
from ..nets import EPS, draw
from ..plans import least_memory
from .product_cases import NETS, again, everything

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 2)

every_net = pytest.mark.parametrize("net", NETS)


# --- algebra
# --------------------------------------------------------------------------------------------------


@every_net
def test_symmetric_and_linear(arch, net, dtype, drawn):
    """<u, Hv> = <v, Hu> and H(2u - 3v) = 2 Hu - 3 Hv, measured against norms: the inner product
    itself may vanish.
    """
    p = drawn(net, dtype)
    slack = 50 * np.finfo(dtype).eps
    norm = np.linalg.norm
    for operator in (p.ob.hessian(p.theta), p.ob.ggn(p.theta), p.ob.empirical_fisher(p.theta)):
        Hu, Hv = operator @ p.u, operator @ p.v
        gap = abs(float(p.u @ Hv) - float(p.v @ Hu))
        assert gap <= slack * (norm(p.u) * norm(Hv) + norm(p.v) * norm(Hu))
        both = operator @ (2 * p.u - 3 * p.v)
        assert norm(both - (2 * Hu - 3 * Hv)) <= slack * (2 * norm(Hu) + 3 * norm(Hv))


@pytest.mark.usefixtures("samples_as_rows")
@every_net
def test_same_bits(arch, net, dtype, drawn):
    """For two calls, for columns and blocks, and for any number of threads."""
    plain = arch == "reference"  # loops take their time
    p = drawn(net, dtype, **({"N": {"wide": 13, "tall": 133}.get(net, 9)} if plain else {}))
    H = p.ob.hessian(p.theta)
    assert (H.layout["panel"] == 0) == (net == "wide")
    product = H @ p.V
    assert np.array_equal(H @ p.V, product)
    wider = H @ np.tile(p.V, 4)
    for j in range(5):
        assert np.array_equal(H @ p.V[:, j], product[:, j])
        assert np.array_equal(wider[:, 15 + j], product[:, j])
    expected = everything(again(p, n_threads=1), p.theta, p.V)
    for threads in (3,) if plain else (2, 3, 5):
        ob = again(p, n_threads=threads)
        assert ob.hessian(p.theta).layout["threads"] == (1 if net == "tiny" else threads)
        for name, value in everything(ob, p.theta, p.V).items():
            assert np.array_equal(value, expected[name]), f"{name} with {threads} threads"


@pytest.mark.parametrize("net", ["tall", "wide"])
def test_gauss_newton_is_positive(net, drawn):
    p = drawn(net)
    G = p.ob.ggn(p.theta)
    forms = G.quadratic(p.V)
    assert np.all(forms > 0)
    assert np.all(abs(forms - (p.V * (G @ p.V)).sum(0)) <= 1e-13 * forms)
    small = drawn("tiny", l2=0)
    for operator in (small.ob.ggn(small.theta), small.ob.empirical_fisher(small.theta)):
        eigenvalues = np.linalg.eigvalsh(operator.to_dense())
        assert eigenvalues[0] >= -1e-14 * eigenvalues[-1]


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "elu"])
@pytest.mark.parametrize("shift", [4, 8, 15])
def test_rounding_bounds_hold_where_units_saturate(activation, shift, dtype, rng, problem):
    """On a plateau the gradient and the product are tiny, and phi' may have lost its digits: the
    bounds must say so.

    Truth: complex steps in long double; only the first layer is moved, so that everything passes
    through phi'.
    """
    p = problem(rng, [3, 6, 2], activation, "mse", 20, dtype=dtype)
    p.model.unflatten(p.theta)[0][1][...] = shift * rng.choice([-1, 1], 6)
    v = rng.standard_normal(p.n).astype(dtype)
    v[24:] = 0
    gradient, product = p.exact(), p.exact(v)
    H = p.ob.hessian(p.theta)
    first = H.restrict(layers=[0])
    errors = {
        "gradient": np.linalg.norm(H.gradient - gradient),
        "product": np.linalg.norm(H @ v - product),
        "first layer": np.linalg.norm(first @ v[:24] - product[:24]),
    }
    bounds = {
        "gradient": p.ob.rounding_bound(p.theta),
        "product": H.rounding_bound(v),
        "first layer": H.rounding_bound(v),
    }
    assert {
        name: (error, bounds[name]) for name, error in errors.items() if not error <= bounds[name]
    } == {}
    if shift == 4:
        assert errors["first layer"] <= {"float64": 1e-11, "float32": 3e-4}[dtype] * np.linalg.norm(
            product[:24]
        )


def test_restricted_products_do_less(drawn):
    """The last layer alone: nothing below it is moved, so NaN that would come from there does
    not.
    """
    p = drawn("tall")
    H = p.ob.hessian(p.theta)
    block = H.restrict(layers=[2])
    full = np.zeros(p.n)
    full[block.indices] = p.v[block.indices]
    assert np.allclose(
        block @ p.v[block.indices], (H @ full)[block.indices], rtol=1e-12, atol=1e-14
    )
    assert np.array_equal(block.gradient, H.gradient[block.indices]) and block.value == H.value


# --- other people's algorithms
# ------------------------------------------------------------------------------------------


def test_scipy_takes_them_as_they_are(rng, problem):
    p = problem(rng, [4, 6, 3], "tanh", "cross_entropy", 40, l2=0.5)
    H = p.ob.hessian(p.theta)
    dense = H.to_dense()
    true = np.linalg.eigvalsh(dense)
    values = eigsh(H, k=3, which="SA", v0=rng.standard_normal(p.n))[0]
    assert np.allclose(np.sort(values), true[:3], rtol=1e-8)
    values = lobpcg(H, rng.standard_normal((p.n, 4)), tol=1e-6, maxiter=200)[0]
    assert np.allclose(np.sort(values), true[-4:], rtol=1e-6)
    G = p.ob.ggn(p.theta)
    tolerance = "rtol" if "rtol" in inspect.signature(minres).parameters else "tol"
    x, info = minres(G, H.gradient, **{tolerance: 1e-12})
    assert info == 0 and np.linalg.norm(G @ x - H.gradient) <= 1e-9 * np.linalg.norm(H.gradient)
    for method in ("trust-ncg", "Newton-CG", "trust-krylov"):
        found = scipy.optimize.minimize(
            p.ob.value_and_gradient, p.theta, jac=True, hessp=p.ob.hessp, method=method
        )
        assert np.linalg.norm(p.ob.gradient(found.x)) <= 1e-4
    sums = 2 * H + G.T - H.H
    assert np.allclose(sums @ p.theta, H @ p.theta + G @ p.theta)


# --- whose state is it
# --------------------------------------------------------------------------------------------------


@every_net
def test_operators_keep_what_they_know(net, drawn):
    """Nothing done to the objective, to theta or to other operators changes one; none of them
    changes the objective.
    """
    p = drawn(net)
    theta = p.theta.copy()
    H, J = p.ob.hessian(theta), p.ob.jacobian(theta)
    Hv, Jv, block = H @ p.v, J @ p.v, H.restrict(layers=[0])
    Bv = block @ p.v[block.indices]
    value = p.ob.value(p.theta)
    for _ in range(3):
        theta += 0.5
        others = [p.ob.hessian(theta), p.ob.ggn(theta), p.ob.jacobian(theta)]
        others[0] @ p.v
        p.ob.gradient(theta)
        p.ob.hessp(theta, p.v)
        del others
        assert np.array_equal(H @ p.v, Hv) and np.array_equal(J @ p.v, Jv)
        assert np.array_equal(block @ p.v[block.indices], Bv)
    assert p.ob.value(p.theta) == value == H.value
    assert np.array_equal(H.theta, p.theta) and not H.theta.flags.writeable
    del H, J  # the block holds on to what it needs
    fresh = p.ob.hessian(theta)
    assert np.array_equal(block @ p.v[block.indices], Bv) and not np.array_equal(fresh @ p.v, Hv)
    gradient = p.ob.gradient(p.theta)
    gradient[:] = 0
    assert p.ob.gradient(p.theta).any()


@every_net
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("asked", ["value", "value_and_gradient", "hessp"])
def test_an_operator_takes_over_what_was_computed_at_its_theta(asked, bounded, net, drawn):
    """The same bits as if nothing had been; what it took over is not the objective's any more."""
    p = drawn(net)
    least = least_memory(lambda memory: again(p, memory=memory).hessian(p.theta))
    bound = (least + again(p).hessian(p.theta).nbytes) // 2 if bounded else None
    ob, elsewhere = again(p, memory=bound), 0.5 * p.theta
    H = again(p, memory=bound).hessian(p.theta)
    want, there = everything(again(p, memory=bound), p.theta, p.V), ob.value(elsewhere)
    for _ in range(3):
        getattr(ob, asked)(p.theta, *[p.v][: asked == "hessp"])
        mine = ob.hessian(p.theta)
        gradient, Hv = mine.gradient.copy(), mine @ p.v
        assert mine.value == H.value and np.array_equal(gradient, H.gradient)
        assert np.array_equal(Hv, H @ p.v)
        ob.hessp(elsewhere, p.v)
        other = ob.ggn(elsewhere)
        assert other.value == there == ob.value(elsewhere)
        assert np.array_equal(mine @ p.v, Hv) and np.array_equal(mine.gradient, gradient)
        assert np.array_equal(mine.theta, p.theta) and mine.value == H.value
    for name, found in everything(ob, p.theta, p.V).items():
        assert np.array_equal(found, want[name]), name


def test_a_trial_step_that_is_taken_costs_one_forward_pass(rng):
    calls = []

    def phi(z):
        calls.append(len(z))
        return np.tanh(z), 1 - np.tanh(z) ** 2, -2 * np.tanh(z) * (1 - np.tanh(z) ** 2)

    X, y = rng.standard_normal((20, 3)), rng.standard_normal((20, 2))
    ob = Objective(MLP([3, 4, 2], fc.Activation(phi)), X, y, "mse", n_threads=1)
    theta = ob.model.init(seed=0)
    for at in (theta, 2 * theta):
        calls.clear()
        ob.value(at)
        forward = len(calls)
        assert forward > 0
        assert ob.hessian(at).gradient.any() and len(calls) == forward
        assert ob.jacobian(at.copy()) @ at is not None and len(calls) == 2 * forward


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_pickle_and_copy(duplicate, drawn):
    p = drawn("tall", n_threads=2)
    ob = duplicate(p.ob)
    assert ob.value(p.theta) == p.ob.value(p.theta) and repr(ob) == repr(p.ob)
    assert ob.n_threads == 2 and np.array_equal(ob.gradient(p.theta), p.ob.gradient(p.theta))
    H = p.ob.hessian(p.theta)
    for operator in (
        H,
        p.ob.ggn(p.theta),
        p.ob.empirical_fisher(p.theta),
        p.ob.jacobian(p.theta),
        H.restrict(layers=[1]),
    ):
        other = duplicate(operator)
        v = p.v[: operator.shape[1]]
        assert type(other) is type(operator) and np.array_equal(other @ v, operator @ v)
        assert getattr(other, "kind", "") == getattr(operator, "kind", "")
    assert duplicate(H).n_products == H.n_products


def test_copies_hold_no_state_of_scipys(monkeypatch, drawn):
    """SciPy's own state of an operator is not documented, and differs between its versions."""

    def refused(self, *_):
        raise AssertionError("SciPy's state was used")

    for name in ("__getstate__", "__setstate__"):
        monkeypatch.setattr(LinearOperator, name, refused, raising=False)
    p = drawn("tall")
    H, G = p.ob.hessian(p.theta), p.ob.ggn(p.theta)
    J = p.ob.jacobian(p.theta)
    operators = [
        H,
        G,
        J,
        J.T,
        H.restrict(layers=[1]),
        H.shift(0.5),
        H.restrict(layers=[0]).shift(1),
    ]
    R = H.reduced("samples")
    operators += [R, R.astype("float32")]
    operators += [PrescribedSpectrum([1.0, 2.0, 4.0], seed=0), MatrixOperator(np.diag([1.0, 2.0]))]
    for op in operators:
        v = np.resize(p.v, op.shape[1])
        for duplicate in (copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
            other = duplicate(op)
            assert type(other) is type(op) and other.dtype == op.dtype
            assert getattr(other, "n_products", 0) == getattr(op, "n_products", 0)
            assert np.array_equal(other @ v, op @ v) and other.H.shape == op.H.shape


def test_pickles_hold_data_and_no_state(drawn):
    p = drawn("tall")
    H = p.ob.hessian(p.theta)
    assert len(pickle.dumps(H)) < p.X.nbytes + p.theta.nbytes + 20000 < H.nbytes


def test_data_is_referenced(rng):
    """X of the model's dtype is not copied, whatever its strides; unflatten gives views."""
    model = MLP([6, 4, 2])
    base = rng.standard_normal((60, 24))
    for X in (
        base[:, :6].copy(),
        base[:, :6],
        np.asfortranarray(base[:, :6]),
        base[::-2, 3:15:2],
        base[:6].T,
    ):
        y = rng.standard_normal((len(X), 2))
        ob = Objective(model, X, y, loss="mse")
        assert np.shares_memory(ob.X, X) and np.shares_memory(ob.y, y)
        assert np.shares_memory(ob.batch(slice(3, 20)).X, X)
        theta = model.init(seed=0)
        for copied in (
            Objective(model, X.copy(), y, "mse"),
            Objective(model, X.tolist(), y.tolist(), "mse"),
        ):
            assert np.array_equal(ob.gradient(theta), copied.gradient(theta))
    theta = model.init(seed=1)
    for W, b in model.unflatten(theta):
        assert np.shares_memory(W, theta) and np.shares_memory(b, theta)
    assert np.array_equal(model.flatten(model.unflatten(theta)), theta)
    model.unflatten(theta)[0][1][...] = 7
    assert (theta == 7).sum() == 4


# --- counts
# --------------------------------------------------------------------------------------------------


def test_products_are_counted(drawn):
    p = drawn("tiny")
    H = p.ob.hessian(p.theta)
    spent = [H.n_products]
    for call in (
        lambda: H @ p.v,
        lambda: H @ p.V,
        lambda: H.matvec(p.v),
        lambda: H.product(p.v),
        lambda: H.quadratic(p.v),
        lambda: H.quadratic(p.V),
        H.to_dense,
        lambda: H.restrict(layers=[0]) @ p.v[:15],
        lambda: H.restrict(indices=[1, 2]).to_dense(),
        lambda: p.ob.hessp(p.theta, p.v),
    ):
        call()
        spent.append(H.n_products)
    assert np.diff(spent).tolist() == [1, 5, 1, 1, 1, 5, p.n, 1, 2, 0]


# --- a model around theta
# -----------------------------------------------------------------------------------------------


def test_taylor(drawn):
    """The error of the quadratic model falls as the cube of the step."""
    p = drawn("tiny")
    model = p.ob.taylor(p.theta)
    d = p.v / np.linalg.norm(p.v)
    errors = np.array([abs(p.ob.value(p.theta + t * d) - model(t * d)) for t in (0.04, 0.02, 0.01)])
    assert model(0 * d) == p.ob.value(p.theta)
    assert np.all(abs(np.log2(errors[:-1] / errors[1:]) - 3) <= 0.25)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "binary_cross_entropy"])
def test_batch(loss, rng, problem):
    """Some rows, by slice, indices or mask: the objective that has only these; sums over batches
    make the whole.
    """
    p = problem(rng, [5, 6, 3], "elu", loss, 50, weights=True)
    v = rng.standard_normal(p.n)
    mask = rng.random(50) < 0.5
    for rows in (
        slice(7, 31),
        slice(None, None, -3),
        rng.integers(50, size=20),
        mask,
        [4],
        list(range(50)),
        np.array([-1, 0]),
    ):
        part = p.ob.batch(rows)
        fresh = Objective(
            p.model, p.X[rows].copy(), p.y[rows].copy(), loss, sample_weight=p.weight[rows].copy()
        )
        assert part.value(p.theta) == fresh.value(p.theta) and part.n_samples == fresh.n_samples
        assert np.array_equal(part.gradient(p.theta), fresh.gradient(p.theta))
        assert np.array_equal(part.hessian(p.theta) @ v, fresh.hessian(p.theta) @ v)
    halves = [p.ob.batch(mask), p.ob.batch(~mask)]
    total = sum(half.n_samples * half.gradient(p.theta) for half in halves) / 50
    assert np.linalg.norm(total - p.ob.gradient(p.theta)) <= 1e-14 * np.linalg.norm(total)


# --- the short way of a single product, and what must not take it


def test_a_vector_of_length_one_and_a_net_of_one_parameter():
    ob = fc.Objective(fc.MLP([1, 1], bias=False), [[2.0]], [1.0], loss="mse")
    H = ob.hessian(np.zeros(1))
    assert np.array_equal(H @ np.ones(1), [8.0])
    assert np.array_equal(H @ np.ones((3, 1))[::3, 0], [8.0])


@pytest.mark.parametrize("n_rows", [1, 15, 16, 17, 100, 127, 128, 129, 200, 500])
def test_a_net_served_by_one_thread_is_right_whatever_its_rows(dtype, n_rows):
    net = draw(n_rows, [2, 6, 1], N=n_rows, dtype=dtype, n_threads=2)
    v = net.direction(np.random.default_rng(0))
    wanted = net.ref.hessian(net.theta.astype(float)) @ v.astype(float)
    error = np.abs(net.ob.hessian(net.theta) @ v - wanted).max()
    assert error < 200 * EPS[dtype] * np.abs(wanted).max()


@pytest.mark.by_day(share=1)
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


# --- skips beside narrow layers, whose samples lie across and whose delta is partly made anew


@pytest.mark.by_day(share=1 / 4)
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 17])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "relu", "elu"])
def test_products_of_a_skip_above_a_narrow_layer(width, activation, rng):
    """Products, blocks and forms, with the layer below joined to its input or not."""
    for d in sorted({1, 2, 9, width}):
        for hidden in ([width, width], [width] * 3):
            model = fc.MLP([d, *hidden, 1], activation, residual=True)
            X, y = rng.standard_normal((7, d)), rng.random((7, 1))
            ob = fc.Objective(model, X, y, loss="mse", n_threads=1)
            theta = model.init(seed=1)
            V = rng.standard_normal((len(theta), 3))
            H, truth = ob.hessian(theta), Truth(ob, theta)
            exact = np.stack([truth.product(v) for v in V.T], axis=1).astype(float)
            for j, v in enumerate(V.T):
                off = np.linalg.norm(H @ v - exact[:, j])
                assert off <= H.rounding_bound(np.ascontiguousarray(v)), (d, hidden, off)
            assert np.allclose(H @ V, exact, rtol=1e-11, atol=1e-11 * np.abs(exact).max())
            forms = (V * exact).sum(axis=0)
            assert np.allclose(H.quadratic(V), forms, atol=1e-11 * np.abs(forms).max())
