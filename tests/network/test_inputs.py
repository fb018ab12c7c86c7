"""Products and initial weights for unusual input: overlapping arrays, NaN, extreme scales and wrong
shapes.
"""

import warnings

import numpy as np
import pytest

from fastcurv import MLP, Objective

from .product_cases import NETS

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 2)

every_net = pytest.mark.parametrize("net", NETS)


def test_labels_of_any_integer_type_and_broadcast_rows_are_accepted(dtype, rng):
    X = rng.integers(-3, 4, (20, 3)).astype(dtype)
    y, model = rng.integers(0, 2, 20), MLP([3, 4, 2], dtype=dtype)
    theta = model.init(rng=0)
    gradient = Objective(model, X, y).gradient(theta)
    for kind in (np.uint8, np.int16, np.int64, ">i4"):
        assert np.array_equal(Objective(model, X, y.astype(kind)).gradient(theta), gradient)
    same = np.broadcast_to(X[0], X.shape)
    gradient = Objective(model, same.copy(), y).gradient(theta)
    assert np.array_equal(Objective(model, same, y).gradient(theta), gradient)
    H = Objective(model, X, y).hessian(theta)
    assert H.astype("float32").dtype == np.float32 and H.astype(dtype) is H


@every_net
def test_products_are_right_if_out_overlaps_v(net, drawn):
    """The product with v, of an operator or a principal block, is bitwise unchanged if `out`
    overlaps v or is v.
    """
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
def test_nan_in_v_reaches_its_product_only(arch, net, dtype, what, drawn):
    """NaN or infinity in one column of V makes the product and quadratic form of that column
    non-finite. Those of the other columns and of later calls are bitwise unchanged.
    """
    p = drawn(net, dtype)
    H = p.ob.hessian(p.theta)
    product, block, form = H @ p.v, H @ p.V, H.quadratic_form(p.V)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for place in (0, p.n // 2, p.n - 1):
            V = p.V.copy()
            V[place, 2] = what
            spoilt = H @ V
            assert not np.isfinite(spoilt[place, 2]) and not np.isfinite(H @ V[:, 2])[place]
            assert not np.isfinite(H.quadratic_form(V[:, 2]))
            clean = np.arange(5) != 2
            assert np.array_equal(spoilt[:, clean], block[:, clean])
            forms = H.quadratic_form(V)
            assert not np.isfinite(forms[2]) and np.array_equal(forms[clean], form[clean])
            assert np.array_equal(H @ p.v, product)
            assert np.array_equal(p.ob.hessp(p.theta, p.v), product)


def test_products_with_zero_are_zero(arch, dtype, drawn):
    p = drawn("tall", dtype)
    H = p.ob.hessian(p.theta)
    assert not (H @ np.zeros(p.n)).any() and H.quadratic_form(np.zeros((p.n, 3))).tolist() == [
        0,
        0,
        0,
    ]
    assert (H @ np.zeros((p.n, 0))).shape == (p.n, 0) and H.quadratic_form(
        np.zeros((p.n, 0))
    ).shape == (0,)
    assert (H @ np.ones((p.n, 1))).shape == (p.n, 1)


def test_products_are_homogeneous_at_extreme_scales(arch, dtype, drawn):
    """H (c v) / c equals H v to four units of rounding, for c = 2^-80 and 2^80 in float32, and for
    c = 2^-900 and 2^900 in float64. No intermediate result overflows or underflows.
    """
    p = drawn("tall", dtype)
    H = p.ob.hessian(p.theta)
    true = H @ p.v
    for power in (-80, 80) if dtype == "float32" else (-900, 900):
        scale = np.array(2.0, dtype) ** power
        product = (H @ (scale * p.v)) / scale
        assert np.linalg.norm(product - true) <= 4 * np.finfo(dtype).eps * np.linalg.norm(true)


@pytest.mark.parametrize("scheme", ["he", "xavier", "lecun", "auto"])
def test_initial_weights_have_their_schemes_variance(scheme):
    """The sample variance of initial weights is within six standard errors of 2 / in for "he", 2 /
    (in + out) for "xavier" and 1 / in for "lecun". The scheme "auto" depends on the activation
    after the layer.
    """
    model = MLP([200, 300, 50, 100], ["relu", "tanh"])
    shares = {"he": lambda m, k: 2 / k, "xavier": lambda m, k: 2 / (m + k)}
    shares["lecun"] = lambda m, k: 1 / k
    auto = ["he", "xavier", "xavier"]  # before relu, before tanh, and the last layer
    for (W, b), name in zip(model.unflatten(model.init(rng=3, scheme=scheme)), auto):
        variance = shares[name if scheme == "auto" else scheme](*W.shape)
        spread = 6 * (2 / W.size) ** 0.5  # six standard errors of the sample variance
        assert abs(W.var() / variance - 1) <= spread < 0.13 and not b.any()
        assert abs(W.mean()) <= 6 * (variance / W.size) ** 0.5
