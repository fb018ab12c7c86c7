"""Activations and loss rows of every kernel table this CPU has, against long double formulas.

Measured bounds are in ULPs of the result or in eps max(1, |z|); each is asserted where it is
promised.
"""

import ctypes
import mmap

import numpy as np
import pytest

from fastcurv import _engine as engine
from fastcurv._engine import probe

LENGTHS = [1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65]  # around every vector width
ACTIVATIONS = [
    "identity",
    "relu",
    "leaky_relu",
    "tanh",
    "sigmoid",
    "softplus",
    "silu",
    "gelu",
    "elu",
]
STRAIGHT = ("identity", "relu", "leaky_relu")
LOSSES = ["mse", "cross_entropy", "binary_cross_entropy"]
DTYPES = [np.float32, np.float64]
LD = np.longdouble

every_arch = pytest.mark.parametrize("arch", engine.available_archs())
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


# --- what is true, in long double
# -------------------------------------------------------------------------------------


def normal(z):
    """Density and distribution function of the normal distribution: series near 0, continued
    fraction further out.
    """
    t = np.abs(z)
    density = np.exp(-t * t / 2) / np.sqrt(2 * LD("3.14159265358979323846264338327950288"))
    near = np.minimum(t, 3)
    term = near.copy()
    total = near.copy()
    for k in range(3, 120, 2):  # n(t) (t + t^3/3 + t^5/15 + ...), no cancellation
        term = term * near * near / k
        total = total + term
    far = np.maximum(t, 3)
    fraction = far.copy()
    for k in range(120, 0, -1):  # n(t) / (t + 1/(t + 2/(t + ...)))
        fraction = far + k / fraction
    tail = np.where(t < 3, LD(0.5) - density * total, density / fraction)
    return density, np.where(z > 0, 1 - tail, tail)


def true_activation(name, z):
    """phi, phi', phi'' of z in long double, left derivatives at kinks."""
    z = z.astype(LD)
    zero, one = np.zeros_like(z), np.ones_like(z)
    e = np.exp(-np.abs(z))
    s = np.where(z > 0, 1 / (1 + e), e / (1 + e))
    d = e / (1 + e) ** 2
    if name == "identity":
        return z, one, zero
    if name == "relu":
        return np.where(z > 0, z, zero), np.where(z > 0, one, zero), zero
    if name == "leaky_relu":
        return np.where(z > 0, z, z / 100), np.where(z > 0, one, one / 100), zero
    if name == "tanh":
        u = np.exp(-2 * np.abs(z))
        p = 4 * u / (1 + u) ** 2
        return np.tanh(z), p, -2 * np.tanh(z) * p
    if name == "sigmoid":
        return s, d, -d * np.tanh(z / 2)
    if name == "softplus":
        return np.maximum(z, 0) + np.log1p(e), s, d
    if name == "silu":
        return z * s, s + z * d, d * (2 - z * np.tanh(z / 2))
    if name == "gelu":
        n, cdf = normal(z)
        return z * cdf, cdf + z * n, n * (2 - z * z)
    low = np.minimum(z, 0)
    return (
        np.where(z > 0, z, np.expm1(low)),
        np.where(z > 0, one, np.exp(low)),
        np.where(z > 0, zero, np.exp(low)),
    )


def true_loss(kind, z, y, weight, divisor):
    """(value, delta, dense Hessians (rows, cols, cols)) in long double."""
    z, weight = z.astype(LD), weight.astype(LD)[:, None]
    if kind == "cross_entropy" and y.ndim == 1:
        y = np.eye(z.shape[1])[y]
    y = y.astype(LD)
    if kind == "mse":
        terms, delta, diagonal = (z - y) ** 2, 2 * (z - y), np.full_like(z, 2)
    elif kind == "binary_cross_entropy":
        e = np.exp(-np.abs(z))
        s = np.where(z > 0, 1 / (1 + e), e / (1 + e))
        terms = np.where(z > 0, z * (1 - y), -z * y) + np.log1p(e)
        delta, diagonal = np.where(z > 0, (1 - y) - e / (1 + e), s - y), e / (1 + e) ** 2
    else:
        u = z - z.max(axis=1, keepdims=True)
        top = np.arange(z.shape[1]) == z.argmax(axis=1)[:, None]
        S = np.where(top, 0, np.exp(u)).sum(axis=1, keepdims=True)
        p, T = np.exp(u) / (1 + S), y.sum(axis=1, keepdims=True)
        terms = -y * u + T * np.log1p(S) / z.shape[1]
        rest = np.where(top, 0, y).sum(axis=1, keepdims=True)
        delta = np.where(top, rest - T * (S / (1 + S)), T * p - y)
        hessians = (T * weight / divisor)[:, :, None] * (
            p[:, :, None] * np.eye(z.shape[1]) - p[:, :, None] * p[:, None, :]
        )
        return (weight * terms).sum() / divisor, weight * delta / divisor, hessians
    hessians = (weight * diagonal / divisor)[:, :, None] * np.eye(z.shape[1])
    return (weight * terms).sum() / divisor, weight * delta / divisor, hessians


def ulps(got, true):
    """Error in units of the last place of the true result, subnormals included."""
    spacing = np.spacing(np.abs(true).astype(got.dtype))
    return np.max(np.abs(got.astype(LD) - true) / spacing)


def sample(dtype, n, rng):
    """Numbers of every exponent, numbers where the functions bend, subnormals and zeros; none so
    large that z z overflows.
    """
    info = np.finfo(dtype)
    log = rng.uniform(np.log10(float(info.smallest_subnormal)), 15, n)
    wide = (10.0**log * rng.choice([-1, 1], n)).astype(dtype)
    near = [
        rng.uniform(-bound, bound, n).astype(dtype)
        for bound in (0.5, 2, 6, 20, 60, 104, 745 if dtype == np.float64 else 89)
    ]
    zeros = np.array(
        [0.0, -0.0, info.tiny, -info.tiny, info.smallest_subnormal, -info.smallest_subnormal], dtype
    )
    return np.concatenate([wide, *near, zeros])


def loss_case(kind, rows, cols, dtype, rng, soft=False, spread=3.0):
    """z, y, weight as one meets them; soft cross entropy targets are any real numbers."""
    z = (spread * rng.standard_normal((rows, cols))).astype(dtype)
    weight = rng.uniform(0.5, 2, rows).astype(dtype)
    if kind == "cross_entropy" and not soft:
        y = rng.integers(0, cols, rows).astype(np.int32)
    elif kind == "binary_cross_entropy":
        y = (
            rng.uniform(0, 1, (rows, cols)).astype(dtype)
            if soft
            else rng.integers(0, 2, (rows, cols)).astype(dtype)
        )
    else:
        y = rng.standard_normal((rows, cols)).astype(dtype)
    return z, y, weight


# --- activations
# --------------------------------------------------------------------------------------------------


@every_arch
@every_dtype
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "elu"])
def test_values_are_within_four_ulp(arch, dtype, name):
    """exp, expm1, log1p, tanh and the sigmoid, each as the activation that is made of it."""
    z = sample(dtype, 4000, np.random.default_rng(0))
    with np.errstate(under="ignore"):
        assert ulps(probe.activate(arch, name, z[None])[0][0], true_activation(name, z)[0]) <= 4


@every_arch
@every_dtype
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_derivatives_are_within_four_eps(arch, dtype, name):
    z = sample(dtype, 4000, np.random.default_rng(1))
    bound = 4 * np.finfo(dtype).eps * np.maximum(1, np.abs(z.astype(LD)))
    for got, true in zip(probe.activate(arch, name, z[None]), true_activation(name, z)):
        assert np.all(np.abs(got[0].astype(LD) - true) <= bound)


@every_arch
@every_dtype
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus"])
def test_saturated_derivatives_keep_relative_accuracy(arch, dtype, name):
    """1 - tanh^2 would be 0 or an ULP of 1 from |z| = 9 on in float32."""
    z = np.random.default_rng(2).uniform(-40, 40, 5000).astype(dtype)
    got, true = probe.activate(arch, name, z[None])[1][0], true_activation(name, z)[1]
    assert np.all(np.abs(got.astype(LD) - true) <= 8 * np.finfo(dtype).eps * true)


@every_arch
@every_dtype
def test_gelu_keeps_relative_accuracy_in_its_tail(arch, dtype):
    """The vector kernels split z^2; the reference rounds z / sqrt(2), which erfc amplifies by
    z^2.
    """
    z = np.random.default_rng(3).uniform(-12, -1, 5000).astype(dtype)
    got, true = probe.activate(arch, "gelu", z[None])[0][0], true_activation("gelu", z)[0]
    bound = 12 + z * z if arch == "reference" else 12
    assert np.all(np.abs(got.astype(LD) - true) <= bound * np.finfo(dtype).eps * np.abs(true))


LIMITS = {  # phi, phi', phi'' far below, at 0, far above; None: z itself
    "identity": [(None, 1, 0), (0, 1, 0), (None, 1, 0)],
    "relu": [(0, 0, 0), (0, 0, 0), (None, 1, 0)],
    "tanh": [(-1, 0, 0), (0, 1, 0), (1, 0, 0)],
    "sigmoid": [(0, 0, 0), (0.5, 0.25, 0), (1, 0, 0)],
    "softplus": [(0, 0, 0), (np.log(2), 0.5, 0.25), (None, 1, 0)],
    "silu": [(0, 0, 0), (0, 0.5, 0.5), (None, 1, 0)],
    "gelu": [(0, 0, 0), (0, 0.5, np.sqrt(2 / np.pi)), (None, 1, 0)],
    "elu": [(-1, 0, 0), (0, 1, 1), (None, 1, 0)],
}


@every_arch
@every_dtype
@pytest.mark.parametrize("name", LIMITS)
def test_limits_and_kinks(arch, dtype, name):
    """Saturated, huge and infinite z give the limits; at 0 the left derivatives hold."""
    largest = np.finfo(dtype).max
    for place, points in enumerate(
        [(-1e4, -1e30, -largest, -np.inf), (0.0, -0.0), (1e4, 1e30, largest, np.inf)]
    ):
        z = np.array([points], dtype)
        for got, want in zip(probe.activate(arch, name, z), LIMITS[name][place]):
            np.testing.assert_allclose(
                got, z if want is None else np.full_like(z, want), rtol=2 * np.finfo(dtype).eps
            )


@every_arch
@every_dtype
def test_leaky_relu_has_torchs_slope(arch, dtype):
    z = np.array([[-np.inf, -1e30, -2.0, -0.0, 0.0, 2.0, np.inf]], dtype)
    a, p, q = probe.activate(arch, "leaky_relu", z)
    np.testing.assert_allclose(a, np.where(z > 0, z, dtype(0.01) * z), rtol=np.finfo(dtype).eps)
    np.testing.assert_array_equal(p, [np.where(z[0] > 0, dtype(1), dtype(0.01))])
    assert np.all(q == 0)


@every_arch
@every_dtype
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_gives_nan_and_stays_in_its_place(arch, dtype, name):
    z = np.linspace(-3, 3, 33, dtype=dtype)
    clean = probe.activate(arch, name, z[None])
    z[13] = np.nan
    spoilt = probe.activate(arch, name, z[None])
    others = np.arange(33) != 13
    for k, (got, want) in enumerate(zip(spoilt, clean)):
        np.testing.assert_array_equal(got[0, others], want[0, others])
        constant = k == 2 and name in STRAIGHT or k == 1 and name == "identity"
        assert np.isnan(got[0, 13]) or constant


@every_arch
@every_dtype
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_element_does_not_know_its_place(arch, dtype, name):
    """The same bits in any row, column and length."""
    for cols in LENGTHS:
        z = np.random.default_rng(cols).uniform(-8, 8, (5, cols)).astype(dtype)
        whole = probe.activate(arch, name, z.reshape(1, -1))
        for got, want in zip(probe.activate(arch, name, z), whole):
            np.testing.assert_array_equal(got.ravel(), want.ravel())


@every_arch
@every_dtype
def test_odd_functions_are_odd_in_every_bit(arch, dtype):
    z = sample(dtype, 500, np.random.default_rng(4))
    a, p, q = probe.activate(arch, "tanh", np.stack([z, -z]))
    np.testing.assert_array_equal(a[0], -a[1])
    np.testing.assert_array_equal(np.signbit(a[0]), np.signbit(z))
    np.testing.assert_array_equal(p[0], p[1])
    np.testing.assert_array_equal(q[0], -q[1])


# --- losses
# --------------------------------------------------------------------------------------------------


@every_arch
@every_dtype
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_value_and_delta(arch, dtype, kind, soft):
    eps = float(np.finfo(dtype).eps)
    for cols, rows in [(n, 3) for n in LENGTHS] + [
        (10, 1),
        (10, 16),
        (10, 19),
        (70, 19),
        (1000, 3),
    ]:
        z, y, weight = loss_case(
            kind, rows, cols, dtype, np.random.default_rng([cols, rows, soft]), soft
        )
        value, delta, h, s, top = probe.loss(arch, kind, z, y, weight, 7.0)
        want, want_delta, _ = true_loss(kind, z, y, weight, 7.0)
        size = (
            np.abs(y).sum(axis=1, keepdims=True) if kind == "cross_entropy" and soft else 1
        )  # T may have cancelled
        summed = 4 + np.sqrt(cols)  # rounding of a sum of cols terms
        scale = np.sum(weight[:, None] * (size + 1) * (np.abs(z).max() + 8) ** 2) * (
            cols if kind != "cross_entropy" else 1
        )
        assert abs(value - want) <= eps * summed * scale / 7
        assert np.all(
            np.abs(delta - want_delta)
            <= eps * summed * weight[:, None] * (4 * size + np.abs(z)) / 7
        )
        if kind == "cross_entropy":
            np.testing.assert_array_equal(top, z.argmax(axis=1))
            T = y.astype(LD).sum(axis=1) if soft else np.ones(rows)
            assert np.all(np.abs(s - weight * T / 7) <= eps * summed * weight * np.ravel(size) / 7)


@every_arch
@every_dtype
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_rdelta_is_the_hessian_times_rz(arch, dtype, kind, soft):
    eps, rows = float(np.finfo(dtype).eps), 5
    for cols in LENGTHS + [10]:
        rng = np.random.default_rng([cols, soft])
        z, y, weight = loss_case(kind, rows, cols, dtype, rng, soft)
        _, _, h, s, top = probe.loss(arch, kind, z, y, weight, 3.0)
        H = true_loss(kind, z, y, weight, 3.0)[2]
        rz = rng.standard_normal((rows, cols)).astype(dtype)
        size = np.abs(y).sum(axis=1) if kind == "cross_entropy" and soft else np.ones(rows)
        extra = eps * (8 + np.sqrt(cols)) * (weight * size)[:, None]
        got = probe.r_loss(arch, kind, h, s, top, rz)
        assert np.all(
            np.abs(got - np.einsum("rij,rj->ri", H, rz)) <= extra * 3 * (1 + np.abs(rz).max())
        )


@every_arch
@every_dtype
@pytest.mark.parametrize("cols", [2, 10, 33])
@pytest.mark.parametrize("margin", [3, 10.6, 30.2, 60.7, 80])
def test_nearly_certain_samples_keep_relative_accuracy(arch, dtype, cols, margin):
    """Where p of the true class is 1 in every bit, the loss and its derivatives still are right to
    some ULP.
    """
    rng, eps = np.random.default_rng(cols), np.finfo(dtype).eps
    z = (0.3 * rng.standard_normal((6, cols))).astype(dtype)
    z[:, 1] += dtype(margin)
    y = np.ones(6, np.int32)
    for targets in (y, np.eye(cols, dtype=dtype)[y]):
        value, delta, h, s, top = probe.loss(arch, "cross_entropy", z, targets)
        want, want_delta, H = true_loss("cross_entropy", z, y, np.ones(6), 1.0)
        assert abs(value - want) <= 4 * eps * want
        assert np.all(np.abs(delta - want_delta) <= 8 * eps * np.abs(want_delta))
        rz = rng.standard_normal((6, cols)).astype(dtype)
        u = np.abs(rz - rz[:, 1:2]).astype(LD)
        got = probe.r_loss(arch, "cross_entropy", h, s, top, rz)
        want = np.einsum("rij,rj->ri", H, rz.astype(LD) - rz[:, 1:2])
        room = np.einsum("rij,rj->ri", np.abs(H), u + np.sum(h * u, axis=1, keepdims=True))
        assert np.all(np.abs(got - want) <= 16 * eps * room)
        assert np.all(got[:, 1] != 0)


@every_arch
@every_dtype
def test_binary_cross_entropy_of_large_logits(arch, dtype):
    """log(1 + exp(-|z|)) where the target agrees, |z| where it does not; no cancelling against the
    target.
    """
    z = np.array([[30.5, -30.5, 80.25, -80.25, 1e4, -1e4, 1e30, -1e30]], dtype)
    right = (z > 0).astype(dtype)
    e = np.exp(-np.abs(z.astype(LD)))
    value, delta, h, _, _ = probe.loss(arch, "binary_cross_entropy", z, right)
    assert abs(value - np.log1p(e).sum()) <= 4 * np.finfo(dtype).eps * np.log1p(e).sum()
    np.testing.assert_allclose(
        delta, (-np.sign(z) * e / (1 + e)).astype(dtype), rtol=4 * np.finfo(dtype).eps, atol=0
    )
    np.testing.assert_allclose(
        h, (e / (1 + e) ** 2).astype(dtype), rtol=4 * np.finfo(dtype).eps, atol=0
    )
    value, delta, _, _, _ = probe.loss(arch, "binary_cross_entropy", z[:, :6], 1 - right[:, :6])
    assert abs(value - np.abs(z[:, :6].astype(LD)).sum()) <= 4 * np.finfo(dtype).eps * value
    np.testing.assert_allclose(
        delta, (np.sign(z) / (1 + e)).astype(dtype)[:, :6], rtol=np.finfo(dtype).eps
    )


@every_arch
@every_dtype
def test_a_shift_of_all_logits_moves_nothing(arch, dtype):
    """The Hessian of cross entropy kills constants: exactly, because rz is centred."""
    z, y, weight = loss_case("cross_entropy", 9, 10, dtype, np.random.default_rng(5))
    _, _, h, s, top = probe.loss(arch, "cross_entropy", z, y, weight)
    assert np.all(probe.r_loss(arch, "cross_entropy", h, s, top, np.full_like(z, 1e6)) == 0)


@every_arch
@every_dtype
def test_ties_and_single_class(arch, dtype):
    value, delta, h, s, top = probe.loss(
        arch, "cross_entropy", np.zeros((2, 4), dtype), np.array([0, 3], np.int32)
    )
    assert value == pytest.approx(2 * np.log(4), rel=float(4 * np.finfo(dtype).eps))
    np.testing.assert_array_equal(
        delta, np.array([[-0.75, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, -0.75]], dtype)
    )
    np.testing.assert_array_equal(top, [0, 0])
    value, delta, h, s, top = probe.loss(
        arch, "cross_entropy", np.full((3, 1), 5, dtype), np.zeros(3, np.int32)
    )
    assert value == 0 and np.all(delta == 0) and np.all(h == 1)


@every_arch
@every_dtype
@pytest.mark.parametrize("kind", LOSSES)
def test_nan_spoils_its_row_and_no_other(arch, dtype, kind):
    z, y, weight = loss_case(kind, 20, 10, dtype, np.random.default_rng(6))
    clean = probe.loss(arch, kind, z, y, weight)[1]
    for column in (0, 4, 9):
        spoilt = z.copy()
        spoilt[7, column] = np.nan
        value, delta, h, _, _ = probe.loss(arch, kind, spoilt, y, weight)
        assert np.isnan(value) and np.isnan(delta[7, column])
        others = np.arange(20) != 7
        np.testing.assert_array_equal(delta[others], clean[others])
    spoilt[7] = np.nan
    assert np.isnan(probe.loss(arch, kind, spoilt, y, weight)[0])


@every_arch
@every_dtype
@pytest.mark.parametrize("kind", LOSSES)
def test_targets_with_any_stride_between_rows(arch, dtype, kind):
    z, y, weight = loss_case(kind, 7, 5, dtype, np.random.default_rng(7), soft=True)
    wide = np.full((14, 9), np.nan, dtype)
    wide[::2, 2:7] = y
    want = probe.loss(arch, kind, z, y, weight)
    for view in (wide[::2, 2:7], np.ascontiguousarray(y[::-1])[::-1]):
        for got, expected in zip(probe.loss(arch, kind, z, view, weight), want):
            np.testing.assert_array_equal(got, expected)


@every_arch
@every_dtype
@pytest.mark.parametrize("kind", LOSSES)
def test_targets_are_read_inside_their_bounds(arch, dtype, kind):
    """The targets end where a protected page begins: a read past the end would be a fault."""
    for cols in LENGTHS:
        read_at_the_edge(arch, dtype, kind, cols)


def read_at_the_edge(arch, dtype, kind, cols):
    rows, page = 3, mmap.PAGESIZE
    z, y, weight = loss_case(kind, rows, cols, dtype, np.random.default_rng(8), soft=True)
    pages = mmap.mmap(-1, (y.nbytes // page + 2) * page)
    start = np.frombuffer(pages, np.uint8).ctypes.data
    guard = (y.nbytes // page + 1) * page
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert protect(start + guard, page, 0) == 0
    edge = np.frombuffer(pages, dtype, y.size, guard - y.nbytes).reshape(y.shape)
    edge[...] = y
    try:
        for got, want in zip(
            probe.loss(arch, kind, z, edge, weight),
            probe.loss(arch, kind, z, y, weight),
        ):
            np.testing.assert_array_equal(got, want)
    finally:
        assert protect(start + guard, page, 3) == 0


@every_arch
@every_dtype
def test_fisher_rows(arch, dtype):
    for cols in LENGTHS:
        delta, rz = np.random.default_rng(cols).standard_normal((2, 6, cols)).astype(dtype)
        got = probe.fisher(arch, 2.5, delta, rz)
        d, x = delta.astype(LD), rz.astype(LD)
        want = 2.5 * np.sum(d * x, axis=1, keepdims=True) * d
        bound = (
            (4 + cols)
            * np.finfo(dtype).eps
            * 2.5
            * np.sum(np.abs(d * x), axis=1, keepdims=True)
            * np.abs(d)
        )
        assert np.all(np.abs(got - want) <= bound)
