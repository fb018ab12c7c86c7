"""Exact diagonals and traces of curvature matrices, against dense matrices, and against derivatives
of single samples in long double within the bound that _engine/diagonal.pyx derives.
"""

import itertools

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import aslinearoperator

import fastcurv as fc
from fastcurv.structure.parameters import divisor_of, l2_diagonal
from fastcurv.structure.tables import LOSSES, loss_spec

from ..certify.longdouble import LD, built_in_loss, in_long_double
from ..nets import ACTIVATIONS, CURVATURES, EPS, KERNELS, LENGTHS, OWN, draw, kernel_tables
from ..plans import laid_out, least_memory, limited

LAYOUTS = {}, {"across": 0}, {"across": 1}, {"across": 2, "folds": 1}, {"across": 1, "shared": True}
SIZES = [4, 3], [5, 9, 1], [3, 7, 6, 4], [4, 5, 5, 5, 2], [3, 4, 6, 6, 3, 2]


def state_in_long_double(ob, H):
    """Return a, W, phi' and s = e phi'' of all layers, and a factor (N, d, q) of the second
    derivatives of the loss, from the state at theta that the engine stored.
    """
    state, W = H._plan.state(), [W.astype(LD) for W, _ in ob.model.unflatten(H.theta)]
    a, p, s = [ob.X.astype(LD)], [], []
    for name, (out, slope, second, delta) in zip(ob.model.activation, state):
        out, delta = out.astype(LD), delta.astype(LD)
        if slope is None:
            leak = {"relu": LD(0), "leaky_relu": LD(0.01)}.get(name, LD(1))
            slope = np.where(out > 0, LD(1), leak)
        if second is None:
            second = delta * {"tanh": -2 * out, "sigmoid": 1 - 2 * out}.get(name, 0)
        a.append(out)
        p.append(slope.astype(LD))
        s.append(second.astype(LD) * (H.kind == "hessian"))
    z = state[-1][0].astype(LD)
    weight = (1 if ob.sample_weight is None else ob.sample_weight.astype(LD)) / LD(divisor_of(ob))
    weight = np.broadcast_to(weight, len(z))[:, None, None]
    if ob.loss != "cross_entropy":
        second = built_in_loss(ob.loss, z, ob.y.astype(LD))[2]
        return a, W, p, s, np.sqrt(weight * second[:, :, None]) * np.eye(z.shape[1])
    root = np.exp((z - z.max(axis=1, keepdims=True)) / 2)
    root /= np.sqrt((root**2).sum(axis=1, keepdims=True))
    unit = np.eye(z.shape[1])
    unit = unit - ((root + unit[-1])[:, :, None] * root[:, None] / (1 + root[:, -1:, None]))
    return a, W, p, s, (np.sqrt(weight) * root[:, :, None] * unit)[:, :, :-1]


def diagonal_in_long_double(ob, H, magnitudes=False):
    """Return the diagonal without l2 from the derivatives of z of each layer with respect to z of
    each lower layer. If `magnitudes`, all factors are replaced by their absolute values.
    """
    *parts, F = state_in_long_double(ob, H)
    if magnitudes:
        parts, F = [[np.abs(x) for x in part] for part in parts], np.abs(F)
    a, W, p, s = parts
    entries = []
    for l, m in enumerate(ob.model.sizes[1:]):
        K = np.broadcast_to(np.eye(m, dtype=LD), (len(a[0]), m, m))
        t, below = np.zeros((len(a[0]), m), LD), None
        for h in range(l, len(W)):
            if h > l:
                skip = h - 1 > l and ob.model.skips[h - 1]
                below = p[h - 1][:, :, None] * K + (below if skip else 0)
                K = np.einsum("ij,njk->nik", W[h], below)
            if h < len(s):
                t += np.einsum("nu,nui->ni", s[h], K * K)
        t += (np.einsum("nic,nij->ncj", F, K) ** 2).sum(axis=1)
        entries.append(np.einsum("ni,nj->ij", t, a[l] ** 2).ravel())
        entries += [t.sum(axis=0)] if ob.model.bias else []
    return np.concatenate(entries)


def assert_within_bound(ob, theta, kind="hessian"):
    H, sizes = getattr(ob, kind)(theta), ob.model.sizes[1:]
    n = ob.n_samples + sum(sizes) + 2 * sum(m + 3 for m in sizes) + 4 * sizes[-1] + 24
    u = EPS[ob.dtype.name] / 2
    exact = diagonal_in_long_double(ob, H) + l2_diagonal(ob)
    bound = n * u / (1 - n * u) * diagonal_in_long_double(ob, H, magnitudes=True)
    assert (np.abs(H.exact_diagonal() - exact) <= bound + 2 * u * np.abs(exact)).all()


@in_long_double
@pytest.mark.parametrize("loss", KERNELS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.by_day(one_of="loss")
def test_diagonal_is_within_its_error_bound(activation, loss, dtype, rng):
    for i, (sizes, residual) in enumerate(itertools.product(SIZES, (False, True))):
        with laid_out(**LAYOUTS[(i + residual) % len(LAYOUTS)]):
            how = {"residual": residual, "weights": i % 2 > 0, "bias": i % 3 > 0}
            net = draw(rng, sizes, activation, loss, LENGTHS[i], dtype=dtype, **how)
            for l2_biases, kind in ((False, "hessian"), (True, "ggn")):
                assert_within_bound(net.objective(l2=0.1, l2_biases=l2_biases), net.theta, kind)


@in_long_double
@pytest.mark.parametrize("table", kernel_tables())
def test_diagonal_by_every_kernel_table_is_within_its_bound(table, dtype, rng, kernels):
    kernels(table)
    for sizes, loss in itertools.product(SIZES[2:], ("mse", "cross_entropy")):
        net = draw(rng, sizes, "tanh", loss, 300, dtype=dtype)
        assert_within_bound(net.ob, net.theta)


def random_objective(i, rng):
    """Return (objective, theta) number i: of any activations, loss, l2 and weights, with dense,
    sparse or streamed samples, or with limited memory.
    """
    sizes = [int(m) for m in rng.integers(1, 7, rng.integers(2, 6))] + [2 * (1 + i % 2)]
    activation = OWN["wave"] if i % 10 == 9 else str(rng.choice(ACTIVATIONS))
    loss, residual, bias = list(LOSSES)[i % len(LOSSES)], rng.random() < 0.5, rng.random() < 0.8
    y = rng.standard_normal((40, sizes[-1] // 2)) if loss == "gaussian_nll" else None
    options = {"l2": float(rng.random()), "l2_biases": rng.random() < 0.5, "y": y}
    net = draw(rng, sizes, activation, loss, 40, bias=bias, residual=residual, **options)
    weight = rng.integers(0, 3, 40).astype(float)
    if i % 4 == 1:
        return net.objective(X=csr_matrix(net.X), sample_weight=weight), net.theta
    if i % 4 == 2:
        return net.objective(fc.StreamedObjective, block_rows=9, sample_weight=weight), net.theta
    if i % 4 == 3:
        least = least_memory(lambda memory: limited(net.ob, memory)._new_plan())
        return limited(net.ob, least + 2000), net.theta
    return net.objective(sample_weight=weight), net.theta


def test_traces_and_diagonals_of_50_random_networks_equal_those_of_their_matrices(rng):
    for i in range(50):
        ob, theta = random_objective(i, rng)
        given = loss_spec(ob.loss).given
        H = getattr(ob, CURVATURES[i % 3 if given is None or given.convex else 0])(theta)
        entries = np.diagonal(H.to_dense())
        trace, diagonal = fc.trace(H), fc.diagonal(H, method="exact")
        assert trace.method == diagonal.method == "exact" and not diagonal.stderr.any()
        assert abs(trace.estimate - entries.sum()) <= 1e-12 * np.abs(entries).sum()
        assert np.abs(diagonal.estimate - entries).max() <= 1e-12 * np.abs(entries).max()


@pytest.mark.parametrize("layout", [{}, {"across": 0}, {"across": 3}])
def test_diagonals_are_bitwise_independent_of_threads(layout, dtype, rng):
    with laid_out(**layout):
        net = draw(rng, [30, 64, 40, 40, 5], "tanh", "cross_entropy", 2500, dtype=dtype)
        one, three = (
            net.objective(n_threads=n).hessian(net.theta).exact_diagonal() for n in (1, 3)
        )
    assert np.array_equal(one, three)


def test_samples_of_weight_zero_add_nothing_to_the_diagonal(dtype, rng):
    net = draw(rng, [3, 6, 2], "relu", "mse", 20, dtype=dtype)
    X, weight = net.X.copy(), np.ones(20)
    X[7], weight[7] = np.finfo(dtype).max / 4, 0
    zeroed = np.where(weight[:, None] > 0, X, 0).astype(dtype)
    one, other = (
        net.objective(X=x, sample_weight=weight).hessian(net.theta).exact_diagonal()
        for x in (X, zeroed)
    )
    assert np.array_equal(one, other)


def test_costs_of_exact_results_are_counted_and_limited_by_the_number_of_probes(rng):
    """A deep network of smooth layers needs a column for each hidden unit. If that costs more than
    the requested products, the result is an estimate. Parts of an operator share its counter.
    """
    net = draw(rng, [20, 30, 30, 30, 10], "tanh", "mse")
    H = net.ob.hessian(net.theta)
    cost = int(np.ceil(H.diagonal_cost))
    assert cost > 3 and fc.trace(H, 3, rng=0).method == "hutchinson" and H.n_products == 3
    exact = fc.diagonal(H, cost)
    assert (exact.method, exact.n_products, H.n_products) == ("exact", cost, 3 + cost)
    assert fc.trace(H, 3, method="exact").estimate == exact.estimate.sum()
    moved, block = H.shift(2.0), H.restrict(layers=[1])
    assert np.array_equal(fc.diagonal(moved).estimate, exact.estimate + 2)
    assert np.array_equal(fc.diagonal(block).estimate, exact.estimate[block.indices])
    assert H.n_products == 3 + 4 * cost


def test_exact_results_are_refused_where_no_formula_is_known(rng):
    normalised = draw(rng, [3, 4, 2], batch_norm=True)
    A = normalised.ob.hessian(normalised.theta)
    for op in (A, A.to_dense(), aslinearoperator(A.to_dense())):
        for estimate in (fc.trace, fc.diagonal):
            with pytest.raises(ValueError, match="no exact diagonal"):
                estimate(op, method="exact")
    assert fc.trace(A).method == "exact"  # by n products


def test_a_diagonal_that_overflows_is_estimated(rng):
    net = draw(rng, [2, 3, 1], "relu", "mse", 9)
    ob = net.objective(X=1e155 * net.X)
    theta = 1e-2 * net.theta
    found = fc.diagonal(ob.ggn(theta), 4, rng=0)
    assert found.method != "exact"
