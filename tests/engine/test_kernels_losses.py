"""Losses and their derivatives in every kernel table that this CPU can run, against long double."""

import itertools

import numpy as np

from fastcurv._engine import testing_hooks as hooks

from ..certify.longdouble import LD, built_in_loss
from ..nets import KERNELS, LENGTHS


def true_loss(kind, z, y, weight, divisor):
    """Return a loss, its derivatives with respect to the outputs z (rows, cols), and its Hessians
    (rows, cols, cols) in long double. The loss is summed over samples with factors weight /
    divisor, which the derivatives include.
    """
    f, y = weight.astype(LD)[:, None] / divisor, np.eye(z.shape[1])[y] if y.dtype == "i4" else y
    terms, delta, second = built_in_loss(kind, z.astype(LD), y.astype(LD))
    dense = second if second.ndim == 3 else second[:, :, None] * np.eye(z.shape[1])
    return (f * terms).sum(), f * delta, f[:, :, None] * dense


def draw_loss_case(kind, rows, cols, dtype, rng, soft=False, spread=3.0):
    """Return (z, y, weight): normal outputs z of standard deviation `spread`, targets that suit the
    loss `kind`, and weights from 0.5 to 2. With `soft`, targets of cross entropy are arbitrary real
    numbers.
    """
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


# --- losses


def test_loss_value_and_delta_match_long_double(arch, dtype):
    for kind, soft in itertools.product(KERNELS, [False, True]):
        eps = float(np.finfo(dtype).eps)
        shapes = [(n, 3) for n in LENGTHS] + [(10, 1), (10, 16), (10, 19), (70, 19), (1000, 3)]
        for cols, rows in shapes:
            rng = np.random.default_rng([cols, rows, soft])
            z, y, weight = draw_loss_case(kind, rows, cols, dtype, rng, soft)
            value, delta, h, s, top = hooks.evaluate_loss(arch, kind, z, y, weight, 7.0)
            want, want_delta, _ = true_loss(kind, z, y, weight, 7.0)
            cross, w = kind == "cross_entropy", weight[:, None]
            size = (
                np.abs(y).sum(axis=1, keepdims=True) if cross and soft else 1
            )  # the sum T of the targets may cancel
            summed = 4 + np.sqrt(cols)  # rounding of a sum of cols terms
            scale = np.sum(w * (size + 1) * (np.abs(z).max() + 8) ** 2) * (1 if cross else cols)
            assert abs(value - want) <= eps * summed * scale / 7
            room = eps * summed * w * (4 * size + np.abs(z)) / 7
            assert np.all(np.abs(delta - want_delta) <= room)
            if cross:
                np.testing.assert_array_equal(top, z.argmax(axis=1))
                T = y.astype(LD).sum(axis=1) if soft else np.ones(rows)
                assert np.all(
                    np.abs(s - weight * T / 7) <= eps * summed * weight * np.ravel(size) / 7
                )


def test_binary_cross_entropy_is_accurate_for_large_logits(arch, dtype):
    """For large |z| the loss is log(1 + exp(-|z|)) if the target agrees with the sign of z and |z|
    if not, without cancellation.
    """
    z = np.array([[30.5, -30.5, 80.25, -80.25, 1e4, -1e4, 1e30, -1e30]], dtype)
    right, eps = (z > 0).astype(dtype), np.finfo(dtype).eps
    e = np.exp(-np.abs(z.astype(LD)))
    value, delta, h, _, _ = hooks.evaluate_loss(arch, "binary_cross_entropy", z, right)
    assert abs(value - np.log1p(e).sum()) <= 4 * eps * np.log1p(e).sum()
    true = -np.sign(z) * e / (1 + e), e / (1 + e) ** 2
    for got, want in zip((delta, h), true):
        np.testing.assert_allclose(got, want.astype(dtype), rtol=4 * eps, atol=0)
    z, e = z[:, :6], e[:, :6]
    value, delta, _, _, _ = hooks.evaluate_loss(arch, "binary_cross_entropy", z, 1 - right[:, :6])
    assert abs(value - np.abs(z.astype(LD)).sum()) <= 4 * eps * value
    np.testing.assert_allclose(delta, (np.sign(z) / (1 + e)).astype(dtype), rtol=eps)


def test_nan_affects_only_its_row(arch, dtype):
    for kind in KERNELS:
        z, y, weight = draw_loss_case(kind, 20, 10, dtype, np.random.default_rng(6))
        clean = hooks.evaluate_loss(arch, kind, z, y, weight)[1]
        for column in (0, 4, 9):
            spoilt = z.copy()
            spoilt[7, column] = np.nan
            value, delta, h, _, _ = hooks.evaluate_loss(arch, kind, spoilt, y, weight)
            assert np.isnan(value) and np.isnan(delta[7, column])
            others = np.arange(20) != 7
            np.testing.assert_array_equal(delta[others], clean[others])
        spoilt[7] = np.nan
        assert np.isnan(hooks.evaluate_loss(arch, kind, spoilt, y, weight)[0])


def test_losses_accept_any_stride_between_rows_of_targets(arch, dtype):
    """Losses and their derivatives for targets of any row stride agree up to two roundings, since a
    compiler may contract a product for one stride and not for another.
    """
    for kind in KERNELS:
        z, y, weight = draw_loss_case(kind, 7, 5, dtype, np.random.default_rng(7), soft=True)
        wide = np.full((14, 9), np.nan, dtype)
        wide[::2, 2:7] = y
        want = hooks.evaluate_loss(arch, kind, z, y, weight)
        for view in (wide[::2, 2:7], np.ascontiguousarray(y[::-1])[::-1]):
            for got, expected in zip(hooks.evaluate_loss(arch, kind, z, view, weight), want):
                atol = 2 * np.finfo(dtype).eps * np.abs(expected).max(initial=0)
                np.testing.assert_allclose(got, expected, rtol=0, atol=atol)
