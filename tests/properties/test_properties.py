"""What holds for every network: identities of products, not numbers.

FASTCURV_EXAMPLES sets how many are tried.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import fastcurv as fc

from ..nets import KINKED
from ..plans import least_memory
from .networks import examples, networks


def norm(x):
    return float(np.linalg.norm(np.asarray(x, float)))


@examples
@given(networks(), st.integers(0, 1000))
def test_symmetry(net, seed):
    """<u, Hv> = <v, Hu>."""
    H = net.objective().hessian(net.theta)
    u = np.random.default_rng(seed).standard_normal(len(net.v)).astype(net.v.dtype)
    a, b = np.vdot(u.astype(float), H @ net.v), np.vdot(net.v.astype(float), H @ u)
    slack = norm(u) * net.room() + norm(net.v) * net.room(u)
    slack += 4 * len(u) * np.finfo(float).eps * norm(u) * norm(H @ net.v)
    assert abs(a - b) <= slack


@examples
@given(networks(), st.floats(-4, 4), st.integers(0, 1000))
def test_linearity(net, factor, seed):
    """H(u + c v) = Hu + c Hv."""
    H = net.objective().hessian(net.theta)
    u = np.random.default_rng(seed).standard_normal(len(net.v)).astype(net.v.dtype)
    c = net.v.dtype.type(factor)
    both = u + c * net.v
    gap = norm((H @ both).astype(float) - (H @ u) - float(c) * (H @ net.v).astype(float))
    slack = net.room(both) + net.room(u) + abs(float(c)) * net.room()
    assert gap <= slack


@examples
@given(networks(), st.randoms(use_true_random=False))
def test_order_of_samples(net, random):
    """The loss is a mean: the order of its rows changes nothing but roundings."""
    order = list(range(len(net.X)))
    random.shuffle(order)
    H = net.objective().hessian(net.theta)
    other = net.objective(X=net.X[order], y=net.y[order]).hessian(net.theta)
    assert norm(H @ net.v - other @ net.v) <= 2 * net.room()


@examples
@given(networks(), st.randoms(use_true_random=False))
def test_order_of_hidden_units(net, random):
    """Hidden units may change places, theta and v alike: the product changes places with them."""
    widths = net.model.sizes[1:-1]
    if not widths or net.model.residual:
        return
    order = list(range(widths[0]))
    random.shuffle(order)
    H = net.objective().hessian(net.theta)
    theta = fc.structure.permute_hidden(net.model, net.theta, 0, order)
    v = fc.structure.permute_hidden(net.model, net.v, 0, order)
    other = net.objective().hessian(theta)
    gap = norm(fc.structure.permute_hidden(net.model, H @ net.v, 0, order) - other @ v)
    assert gap <= net.room() + net.room(v, theta)


@examples
@given(networks(), st.data())
def test_split_batches(net, data):
    """The product is the mean of the products of two parts, weighted by their rows."""
    N = len(net.X)
    if N < 2:
        return
    cut = data.draw(st.integers(1, N - 1))
    ob = net.objective()
    H = ob.hessian(net.theta)
    parts = [ob.batch(slice(0, cut)), ob.batch(slice(cut, N))]
    mean, slack = 0.0, 2 * net.room()
    for part, rows in zip(parts, (cut, N - cut), strict=True):
        of_part = part.hessian(net.theta)
        mean = mean + rows / N * (of_part @ net.v).astype(float)
    assert norm(H @ net.v - mean) <= slack + 4 * np.finfo(float).eps * norm(mean)


@examples
@given(networks(), st.integers(-20, 20))
def test_scale_of_the_weights(net, power):
    """Sample weights times a power of two: the product too, to the last bit."""
    if net.options["l2"]:
        return
    ones = np.ones(len(net.X))
    H = net.objective(sample_weight=ones).hessian(net.theta)
    other = net.objective(sample_weight=ones * 2.0**power).hessian(net.theta)
    gap = norm((H @ net.v).astype(float) * 2.0**power - (other @ net.v))
    assert gap <= 2 * 2.0**power * net.room()


@examples
@given(networks(), st.integers(1, 9), st.integers(0, 1000))
def test_a_block_is_its_columns(net, k, seed):
    """H V = [H v1, H v2, ...]."""
    H = net.objective().hessian(net.theta)
    V = np.random.default_rng(seed).standard_normal((len(net.v), k)).astype(net.v.dtype)
    block = H @ V
    for j in range(k):
        v = np.ascontiguousarray(V[:, j])
        assert norm(block[:, j] - H @ v) <= 2 * net.room(v)


@examples
@given(networks(dtypes=("float32",)))
def test_precision(net):
    """float32 differs from float64 at the same numbers by its proved bound."""
    H = net.objective().hessian(net.theta)
    high = H.astype("float64")
    v = net.v.astype(float)
    assert norm(H @ net.v - high @ v) <= net.room() + net.room(dtype="float64")


@examples
@given(networks(rows=200), st.floats(0, 1))
def test_chunks(net, share):
    """What `memory` cuts in chunks differs by roundings from what is kept whole; of blocks, too."""
    H = net.objective().hessian(net.theta)
    least = least_memory(lambda memory: net.objective(memory=memory).hessian(net.theta))
    other = net.objective(memory=int(least + share**2 * (H.nbytes - least))).hessian(net.theta)
    V = np.stack([net.v, net.v[::-1], -net.v], 1)
    block = other @ V
    for j in range(2):
        v = np.ascontiguousarray(V[:, j])
        assert norm(H @ v - other @ v) <= 2 * net.room(v)
        assert norm(H @ v - block[:, j]) <= 2 * net.room(v)


@examples
@given(networks(rows=12), st.data())
def test_a_weight_is_a_repeated_row(net, data):
    """A row of weight w counts as w rows; the divisor stays the number of rows given."""
    if net.options["l2"]:
        return
    N = len(net.X)
    weight = np.array(data.draw(st.lists(st.integers(0, 3), min_size=N, max_size=N)))
    if not weight.any():
        return
    rows = np.repeat(np.arange(N), weight)
    H = net.objective(sample_weight=weight.astype(float)).hessian(net.theta)
    other = net.objective(X=net.X[rows], y=net.y[rows]).hessian(net.theta)
    share = len(rows) / N
    gap = norm((H @ net.v).astype(float) - share * (other @ net.v).astype(float))
    assert gap <= 2 * net.room(sample_weight=weight.astype(float))


@examples
@given(networks(), st.floats(1e-6, 10))
def test_l2_is_a_shift(net, l2):
    """H with l2 is H + l2 I."""
    H = net.objective(l2=0.0).hessian(net.theta)
    other = net.objective(l2=l2).hessian(net.theta)
    gap = norm((other @ net.v).astype(float) - (H @ net.v) - l2 * net.v.astype(float))
    assert gap <= 2 * net.room(l2=l2)


@examples
@given(networks())
def test_gauss_newton_is_positive_semidefinite(net):
    """v'Gv >= 0 up to its bound, and G = H where the model is linear in its parameters."""
    ob = net.objective()
    G = ob.ggn(net.theta)
    v = net.v.astype(float)
    assert float(v @ (G @ net.v).astype(float)) >= -norm(v) * net.room() - 1e-300
    if len(net.model.sizes) == 2:
        H = ob.hessian(net.theta)
        assert norm(H @ net.v - G @ net.v) <= 2 * net.room()


def test_the_draws_reach_kinks_and_skips():
    """The networks that the properties see are of every kind."""
    seen = set()

    @examples
    @given(networks())
    def look(net):
        seen.add(("kink", set(np.ravel(net.model.activation)).isdisjoint(KINKED)))
        seen.add(("skip", net.model.residual))
        seen.add(("dtype", str(net.theta.dtype)))
        seen.add(("loss", net.options["loss"]))

    look()
    assert len(seen) == 14  # twice two, two dtypes, eight losses
