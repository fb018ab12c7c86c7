"""Value, gradient and products agree with complex steps in plain NumPy, in every memory layout, and
are symmetric and bitwise identical for any number of threads.
"""

import functools
import inspect
import itertools
import pickle
import zlib

import numpy as np
import pytest
import scipy.optimize
from scipy.sparse.linalg import eigsh, lobpcg, minres

import fastcurv as fc
from fastcurv import MLP, Objective
from fastcurv import _engine as engine

from .. import nets
from ..nets import ACTIVATIONS, CURVATURES, KERNELS, every_activation
from ..plans import laid_out, least_memory
from .product_cases import NETS, SLACK, compare, public_results, truth, with_options

one_dtype = pytest.mark.by_day(one_of="dtype")


every_net = pytest.mark.parametrize("net", NETS)


# lengths around every vector width and tile
LENGTHS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 700]


# --- exact


@functools.cache
def problem_with_truth(
    problem, dtype, sizes, activation, loss, N, bias, residual, weights, l2, soft
):
    """Return (p, V, u, known): a problem, two vectors V (n, 2), weights u (N, d_out), and the dict
    of `truth`, computed once for all kernel tables.
    """
    key = repr((sizes, activation, loss, N, bias, residual, weights))
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    how = {"bias": bias, "residual": residual, "weights": weights, "l2": l2, "soft": soft}
    how["l2_biases"] = N % 2 == 0
    p = problem(rng, list(sizes), activation, loss, N, dtype=dtype, **how)
    V = rng.standard_normal((p.n, 2)).astype(dtype)
    u = rng.standard_normal((N, sizes[-1])).astype(dtype)
    return p, V, u, truth(p.ref, p.theta, V, u)


def check(problem, dtype, *case):
    p, V, u, known = problem_with_truth(problem, dtype, *case)
    p.ob.__setstate__(
        p.ob.__getstate__()
    )  # a new objective, so that its plans use this kernel table
    compare(p, known, V, u, SLACK[dtype], case)


@one_dtype
@every_activation
def test_products_are_exact_for_every_combination_of_options(arch, activation, dtype, problem):
    """Results agree with complex steps for every combination of loss, bias, skip connections and
    weights, with widths and numbers of samples around SIMD vectors and tiles.
    """
    short = LENGTHS[:-1]
    start = ACTIVATIONS.index(activation)
    for i, (loss, residual, weights, bias) in enumerate(
        itertools.product(KERNELS, (True, False), (True, False), (True, False))
    ):
        a, b, c, d = (short[(start + step * i) % len(short)] for step in (1, 3, 5, 8))
        sizes = (a, a, b, b, c) if residual else (a, b, c)
        more = bias, residual, weights, 0.1 * (i % 3 > 0), i % 4 == 0
        check(problem, dtype, sizes, activation, loss, d, *more)


def test_products_are_exact_at_every_length(arch, dtype, problem):
    """Results agree with complex steps if the number of inputs, hidden units, outputs or samples is
    any of LENGTHS, with two different activations.
    """
    for i in range(len(LENGTHS)):
        sizes = tuple(LENGTHS[(i + shift) % len(LENGTHS)] for shift in (0, 3, 8, 5))
        names = (ACTIVATIONS[i % 9], ACTIVATIONS[(i + 4) % 9])
        more = LENGTHS[(i + 10) % len(LENGTHS)], i % 2 == 0, False, i % 4 > 1, 0.0, False
        check(problem, dtype, sizes, names, KERNELS[i % 3], *more)


@pytest.mark.usefixtures("samples_as_rows")
def test_products_of_wide_nets_are_exact(arch, dtype, problem):
    """Results agree with complex steps for networks that exceed the second-level cache and are
    evaluated layer by layer. Each kernel table and dtype tests a third of the activations.
    """
    archs = engine.available_archs()
    first = archs.index(arch) + (dtype == "float32")
    for i, activation in list(enumerate(ACTIVATIONS))[first % 3 :: 3]:
        loss, N = KERNELS[(i + archs.index(arch)) % 3], (9, 17, 33)[i % 3]
        more = i % 2 == 0, i % 4 < 2, i % 3 == 0, 0.0, False
        case = (129, 131, 131, 257, 33), activation, loss, N, *more
        check(problem, dtype, *case)
        p = problem_with_truth(problem, dtype, *case)[0]
        assert p.ob.hessian(p.theta).layout["panel"] == 0


@pytest.mark.parametrize("loss", KERNELS)
def test_dense_matrices_are_exact(arch, loss, dtype, rng, problem):
    """`to_dense` is symmetric and agrees with complex steps, also for one linear layer."""
    for sizes in ([3, 5, 4, 3], [4, 3]):
        p = problem(rng, sizes, "softplus", loss, 9, weights=True, l2=0.3, dtype=dtype)
        I = np.eye(p.n)
        true = truth(p.ref, p.theta, I, np.zeros((9, 3)))
        for kind, name in zip(CURVATURES, ("HV", "GV", "FV")):
            dense = getattr(p.ob, kind)(p.theta).to_dense()
            assert np.array_equal(dense, dense.T)
            assert np.linalg.norm(dense - true[name]) <= SLACK[dtype] * np.linalg.norm(true[name])


def certain_logits(kind, margin):
    """Return logits (1, 3), exact in float32, in which class 0 leads by margin - 1 (kind "true"),
    leads by 1 ("top twice") or trails by `margin` ("wrong").
    """
    logits = {"true": [margin, 0.0, 1.0], "top twice": [margin, margin - 1, 0.0]}
    return np.array([logits.get(kind, [0.0, margin, 1.0])])


@pytest.mark.parametrize("across", [-1, 0])
def test_nearly_certain_samples_keep_relative_accuracy(across, arch, dtype, rng):
    """For one sample whose logits differ by up to 60, value, gradient, product and quadratic form
    keep their relative accuracy, in the transposed layout and with samples as rows. The logits are
    biases, and the oracle is log1p in long double.
    """
    for margin, kind, soft in itertools.product(
        [4.0, 16.0, 30.0, 60.0], ["true", "top twice", "wrong"], [False, True]
    ):
        model = fc.MLP([1, 3], dtype=dtype)
        z = certain_logits(kind, margin)
        y = np.array([[1.0, 0.0, 0.0]]) if soft else np.array([0])
        theta = np.r_[np.zeros(3), z[0]].astype(dtype)
        v = np.r_[np.zeros(3), rng.standard_normal(3)].astype(dtype)
        long = z[0].astype(np.longdouble)
        e = np.exp(long - long[0])
        others = e[1:].sum()
        p = e / e.sum()
        delta = p.copy()
        delta[0] = -others / (1 + others)
        r = v[3:].astype(np.longdouble)
        centre = (
            r - r[np.argmax(long)]
        )  # H r = p (r - p'r), without cancellation if p is nearly e_i
        true = p * (centre - p @ centre)
        top = np.argmax(long)
        true[top] = -np.delete(true, top).sum()
        with laid_out(across=across):
            ob = fc.Objective(model, np.zeros((1, 1)), y, "cross_entropy")
            H = ob.hessian(theta)
        eps = 8 * (1 + margin) * np.finfo(dtype).eps  # the error of exp at a rounded argument
        assert abs(ob.value(theta) - np.log1p(others)) <= eps * np.log1p(others)
        assert np.all(np.abs(H.gradient[3:] - delta) <= eps * np.abs(delta))
        room = np.abs(p * (np.abs(centre) + abs(p @ centre)))
        room += (np.arange(3) == top) * np.abs(true[top])
        assert np.all(np.abs((H @ v)[3:] - true) <= 4 * eps * room)
        form = (p * centre**2).sum() - (p @ centre) ** 2
        assert (
            abs(H.quadratic_form(v) - form)
            <= 16 * eps * abs(form) + 4 * eps * (p * centre**2).sum()
        )


# --- algebra


def test_scipy_solvers_accept_the_operators(rng, problem):
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


@every_net
def test_operators_are_independent_of_later_calls(net, drawn):
    """Results of an operator do not change if theta is modified or if other operators are created,
    and operators do not affect the objective.
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
    del H, J  # the block keeps its operator alive
    fresh = p.ob.hessian(theta)
    assert np.array_equal(block @ p.v[block.indices], Bv) and not np.array_equal(fresh @ p.v, Hv)
    gradient = p.ob.gradient(p.theta)
    gradient[:] = 0
    assert p.ob.gradient(p.theta).any()


@every_net
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("asked", ["value", "value_and_gradient", "hessp"])
def test_an_operator_reuses_the_forward_pass_at_its_theta(asked, bounded, net, drawn):
    """An operator reuses the pass of a value, gradient or product that was computed before at its
    theta. Its results are bitwise identical to those of a new objective.
    """
    p = drawn(net)
    least = least_memory(lambda memory: with_options(p, memory=memory).hessian(p.theta))
    bound = (least + with_options(p).hessian(p.theta).nbytes) // 2 if bounded else None
    ob, elsewhere = with_options(p, memory=bound), 0.5 * p.theta
    H = with_options(p, memory=bound).hessian(p.theta)
    want, there = public_results(with_options(p, memory=bound), p.theta, p.V), ob.value(elsewhere)
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
    for name, found in public_results(ob, p.theta, p.V).items():
        assert np.array_equal(found, want[name]), name


def test_pickles_have_data_without_the_plans_state(drawn):
    p = drawn("tall")
    H = p.ob.hessian(p.theta)
    assert len(pickle.dumps(H)) < p.X.nbytes + p.theta.nbytes + 20000 < H.nbytes


def test_data_of_the_models_dtype_are_not_copied(rng):
    """X and y of the model's dtype are not copied for any strides, and `unflatten` is a view."""
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
        theta = model.init(rng=0)
        for copied in (
            Objective(model, X.copy(), y, "mse"),
            Objective(model, X.tolist(), y.tolist(), "mse"),
        ):
            assert np.array_equal(ob.gradient(theta), copied.gradient(theta))
    theta = model.init(rng=1)
    for W, b in model.unflatten(theta):
        assert np.shares_memory(W, theta) and np.shares_memory(b, theta)
    assert np.array_equal(model.flatten(model.unflatten(theta)), theta)
    model.unflatten(theta)[0][1][...] = 7
    assert (theta == 7).sum() == 4


def test_n_products_counts_products(drawn):
    p = drawn("tiny")
    H = p.ob.hessian(p.theta)
    spent = [H.n_products]
    for call in (
        lambda: H @ p.v,
        lambda: H @ p.V,
        lambda: H.matvec(p.v),
        lambda: H.product(p.v),
        lambda: H.quadratic_form(p.v),
        lambda: H.quadratic_form(p.V),
        H.to_dense,
        lambda: H.restrict(layers=[0]) @ p.v[:15],
        lambda: H.restrict(indices=[1, 2]).to_dense(),
        lambda: p.ob.hessp(p.theta, p.v),
    ):
        call()
        spent.append(H.n_products)
    assert np.diff(spent).tolist() == [
        1,
        5,
        1,
        1,
        1,
        5,
        0,
        1,
        2,
        0,
    ]  # the matrix is summed directly, without products


@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "binary_cross_entropy"])
def test_a_batch_equals_an_objective_of_its_samples(loss, rng, problem):
    """A batch chosen by slice, indices or mask is bitwise equal to an objective of those samples,
    and the mean of the batches' gradients, weighted by size, is the gradient of all samples.
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


@one_dtype
@pytest.mark.parametrize("at", [0, 65535, 65536, 65537, 150_000])
@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
def test_one_nan_in_a_long_theta_is_detected(dtype, at, what):
    model = fc.MLP([300, 500, 1], dtype=dtype)
    ob = fc.Objective(model, np.ones((2, 300)), [0.0, 1.0], loss="mse", n_threads=2)
    theta = model.init(rng=0)
    value = ob.value(theta)
    theta[at] = what
    for call in (ob.value, ob.gradient, ob.hessian, ob.ggn):
        with pytest.raises(ValueError, match="theta"):
            call(theta)
    assert ob.value(model.init(rng=0)) == value


@one_dtype
def test_theta_whose_squares_overflow_is_accepted_and_copied(dtype):
    model = fc.MLP([2, 1], bias=False, dtype=dtype)
    ob = fc.Objective(model, [[1.0, -1.0]], [0.0], loss="mse")
    large = np.sqrt(np.finfo(dtype).max) * 4
    theta = np.array([large, large], dtype)
    H = ob.hessian(theta)
    assert ob.value(theta) == 0
    theta[:] = 0
    assert (H.theta == large).all()


# --- layouts: transposed or by rows, W and V packed or read in place


SHAPES = [
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
    ([17000, 3, 2], 2, "softplus", "mse", {}),  # more inputs than one chain of additions
    ([1, 1, 1], 1, "tanh", "mse", {}),
    ([9, 31, 31, 2], 27, "leaky_relu", "mse", {"residual": True}),
    ([20, 33, 17], 8, "tanh", "mse", {"bias": False}),  # no bias follows the last matrix
]


PACKED_PHI_NETS = [  # one hidden layer whose phi' is a function of phi, with at most three outputs
    ([1, 20, 1], 17, "tanh", "mse", {}),
    ([20, 100, 2], 333, "sigmoid", "binary_cross_entropy", {}),
    ([33, 17, 3], 65, "tanh", "cross_entropy", {}),
    ([5, 7, 1], 50, "sigmoid", "mse", {"bias": False}),
]
# Layouts: panels of one cache line, of a few, and of more lines than samples; one panel that is
# shared by all threads in items of work; and matrices that are read without packing.


CASES = [(net, {"across": lines}) for net in SHAPES for lines in (1, 3, 25)]
CASES += [(net, {"across": 1, "shared": True}) for net in SHAPES + WIDE]
CASES += [(net, {"across": 0, "unpacked": 64}) for net in FEW]
CASES += [(net, {"across": lines, "folds": 1}) for net in PACKED_PHI_NETS for lines in (1, 3, 25)]


def layout_problem(net, dtype, **options):
    sizes, rows, activation, loss, more = net
    how = {"weights": True, "l2": 0.01, "n_threads": 2, "dtype": dtype, **more, **options}
    return nets.draw(5, sizes, activation, loss, rows, **how)


def all_passes(net, dtype, **options):
    """Return (results, layout): the results of every pass by name, and the layout of the plan."""
    p, rng = layout_problem(net, dtype, **options), np.random.default_rng(6)
    V, ob, theta = p.direction(rng, 3), p.ob, p.theta
    H, G = ob.hessian(theta), ob.ggn(theta)
    top = H.restrict(layers=[len(net[0]) - 2])
    more = {
        "V'GV": G.quadratic_form(V),
        "predict": p.model.predict(theta, p.X),
        "the last layer": top @ np.ones(top.shape[0], dtype),
    }
    return public_results(ob, theta, V) | more, H.layout


def assert_close(found, expected, room):
    for name, y in expected.items():
        assert np.linalg.norm(found[name] - y) <= room * np.linalg.norm(y), name


@one_dtype
@pytest.mark.parametrize(
    "net, how", CASES, ids=["-".join([*map(str, net[0]), *map(str, how.values())])
                            for net, how in CASES]
)  # fmt: skip
def test_every_layout_gives_the_same_results(arch, net, how, dtype):
    """In every layout, results agree with those for samples as rows and are bitwise identical for
    any number of threads. In transposed layouts, the first column of a block product is bitwise
    equal to the product with that column.
    """
    with laid_out(across=0, unpacked=0):
        expected, _ = all_passes(net, dtype)
    with laid_out(**how):
        found, layout = all_passes(net, dtype, n_threads=1)
        more = [all_passes(net, dtype, n_threads=threads)[0] for threads in (2, 5)]
    assert_close(found, expected, 1e-11 if dtype == "float64" else 3e-4)
    assert all(np.array_equal(x, other[name]) for other in more for name, x in found.items())
    assert layout["packed_pairs"] == ("folds" in how and arch not in ("blas", "reference"))
    if "unpacked" in how:
        assert layout["panel"] == 0 or arch in ("blas", "reference")
    else:
        assert layout["panel"] % (64 // np.dtype(dtype).itemsize) == 0
        assert layout["panel"] >= net[1] or "shared" not in how
        assert np.array_equal(found["H @ v"], found["H @ V"][:, 0])


def with_and_without_packed_phi(run_passes):
    """Return [packed, plain]: `run_passes()` with phi and phi' in one number, and stored apart."""
    found = []
    for folds in (1, 0):
        with laid_out(across=3, folds=folds):
            found.append(run_passes())
    return found


@one_dtype
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_packed_phi_keeps_relative_accuracy_of_saturated_units(activation, dtype, rng):
    """For saturated units, where 1 - a^2 would be 0, Jacobian products keep relative accuracy."""
    X = rng.choice([-1.0, 1.0], (70, 3)).astype(dtype) * rng.uniform(0.9, 1.1, (70, 1)).astype(
        dtype
    )
    model = fc.MLP([3, 4, 1], activation, bias=False, dtype=dtype)
    theta, v = np.ones(model.n_params, dtype), np.zeros(model.n_params, dtype)
    theta[:12], v[:12] = 12 if activation == "tanh" else 24, rng.uniform(0.5, 1, 12)
    folded, plain = with_and_without_packed_phi(
        lambda: fc.Objective(model, X, np.ones((70, 1), dtype)).jacobian(theta) @ v
    )
    assert 0 < np.abs(plain).min() < np.finfo(dtype).eps
    np.testing.assert_allclose(folded, plain, rtol=100 * np.finfo(dtype).eps, atol=0)
