"""Identities of Hessian products that hold for every network.

FASTCURV_EXAMPLES sets how many networks are drawn.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import fastcurv as fc

from ..nets import KINKED
from .networks import examples, networks


def norm(x):
    return float(np.linalg.norm(np.asarray(x, float)))


@examples
@given(networks(), st.integers(0, 1000))
def test_hessian_is_symmetric(net, seed):
    """The Hessian H is symmetric: <u, Hv> = <v, Hu> up to rounding."""
    H = net.objective().hessian(net.theta)
    u = np.random.default_rng(seed).standard_normal(len(net.v)).astype(net.v.dtype)
    a, b = np.vdot(u.astype(float), H @ net.v), np.vdot(net.v.astype(float), H @ u)
    slack = norm(u) * net.rounding_allowance() + norm(net.v) * net.rounding_allowance(u)
    slack += 4 * len(u) * np.finfo(float).eps * norm(u) * norm(H @ net.v)
    assert abs(a - b) <= slack


@examples
@given(networks(), st.floats(-4, 4), st.integers(0, 1000))
def test_products_are_linear(net, factor, seed):
    """Products with the Hessian H are linear: H(u + c v) = Hu + c Hv up to rounding."""
    H = net.objective().hessian(net.theta)
    u = np.random.default_rng(seed).standard_normal(len(net.v)).astype(net.v.dtype)
    c = net.v.dtype.type(factor)
    both = u + c * net.v
    gap = norm((H @ both).astype(float) - (H @ u) - float(c) * (H @ net.v).astype(float))
    slack = (
        net.rounding_allowance(both)
        + net.rounding_allowance(u)
        + abs(float(c)) * net.rounding_allowance()
    )
    assert gap <= slack


@examples
@given(networks(), st.randoms(use_true_random=False))
def test_sample_order_changes_results_only_by_rounding(net, random):
    """If samples are permuted, the Hessian product changes only by rounding, because the loss is a
    mean over samples.
    """
    order = list(range(len(net.X)))
    random.shuffle(order)
    H = net.objective().hessian(net.theta)
    other = net.objective(X=net.X[order], y=net.y[order]).hessian(net.theta)
    assert norm(H @ net.v - other @ net.v) <= 2 * net.rounding_allowance()


@examples
@given(networks(), st.randoms(use_true_random=False))
def test_permuted_hidden_units_permute_the_product(net, random):
    """If hidden units are permuted in theta and v, the entries of the Hessian product are permuted
    in the same order, up to rounding.
    """
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
    assert gap <= net.rounding_allowance() + net.rounding_allowance(v, theta)


@examples
@given(networks(), st.data())
def test_product_is_the_weighted_mean_over_batches(net, data):
    """The Hessian product equals the mean of the products of two batches, weighted by their numbers
    of samples, up to rounding.
    """
    N = len(net.X)
    if N < 2:
        return
    cut = data.draw(st.integers(1, N - 1))
    ob = net.objective()
    H = ob.hessian(net.theta)
    parts = [ob.batch(slice(0, cut)), ob.batch(slice(cut, N))]
    mean, slack = 0.0, 2 * net.rounding_allowance()
    for part, rows in zip(parts, (cut, N - cut), strict=True):
        of_part = part.hessian(net.theta)
        mean = mean + rows / N * (of_part @ net.v).astype(float)
    assert norm(H @ net.v - mean) <= slack + 4 * np.finfo(float).eps * norm(mean)


@examples
@given(networks(), st.integers(-20, 20))
def test_sample_weights_times_a_power_of_two_scale_the_product(net, power):
    """If all sample weights are multiplied by a power of two, the Hessian product is multiplied by
    that power up to rounding.
    """
    if net.options["l2"]:
        return
    ones = np.ones(len(net.X))
    H = net.objective(sample_weight=ones).hessian(net.theta)
    other = net.objective(sample_weight=ones * 2.0**power).hessian(net.theta)
    gap = norm((H @ net.v).astype(float) * 2.0**power - (other @ net.v))
    assert gap <= 2 * 2.0**power * net.rounding_allowance()


@examples
@given(networks(dtypes=("float32",)))
def test_float32_differs_from_float64_within_its_proved_bound(net):
    """Products in float32 differ from those in float64 with equal data by at most the sum of the
    allowed rounding errors of both.
    """
    H = net.objective().hessian(net.theta)
    high = H.astype("float64")
    v = net.v.astype(float)
    assert norm(H @ net.v - high @ v) <= net.rounding_allowance() + net.rounding_allowance(
        dtype="float64"
    )


@examples
@given(networks(rows=12), st.data())
def test_a_sample_weight_equals_repeated_samples(net, data):
    """A sample of weight w counts as w copies of the sample, except that the divisor of the loss
    remains the number of rows of X.
    """
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
    assert gap <= 2 * net.rounding_allowance(sample_weight=weight.astype(float))


@examples
@given(networks(), st.floats(1e-6, 10))
def test_l2_shifts_the_hessian(net, l2):
    """With an l2 penalty, the Hessian is the Hessian without penalty plus l2 times the identity, up
    to rounding.
    """
    H = net.objective(l2=0.0).hessian(net.theta)
    other = net.objective(l2=l2).hessian(net.theta)
    gap = norm((other @ net.v).astype(float) - (H @ net.v) - l2 * net.v.astype(float))
    assert gap <= 2 * net.rounding_allowance(l2=l2)


@examples
@given(networks())
def test_gauss_newton_is_positive_semidefinite(net):
    """For the Gauss-Newton matrix G, v'Gv is nonnegative up to rounding, and G equals the Hessian
    if the model has a single layer.
    """
    ob = net.objective()
    G = ob.ggn(net.theta)
    v = net.v.astype(float)
    assert float(v @ (G @ net.v).astype(float)) >= -norm(v) * net.rounding_allowance() - 1e-300
    if len(net.model.sizes) == 2:
        H = ob.hessian(net.theta)
        assert norm(H @ net.v - G @ net.v) <= 2 * net.rounding_allowance()


def test_drawn_networks_include_kinks_skips_and_all_losses():
    """The strategy draws networks with and without kinks, with and without skip connections, of
    both dtypes and of every loss.
    """
    seen = set()

    @examples
    @given(networks())
    def record(net):
        seen.add(("kink", set(np.ravel(net.model.activation)).isdisjoint(KINKED)))
        seen.add(("skip", net.model.residual))
        seen.add(("dtype", str(net.theta.dtype)))
        seen.add(("loss", net.options["loss"]))

    record()
    # with and without kinks, with and without skips, two dtypes, eight losses
    assert len(seen) == 14
