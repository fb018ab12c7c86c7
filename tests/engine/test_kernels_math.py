"""Activations in every kernel table that this CPU can run, against long double formulas.

Measured bounds are in ULPs of the result or in eps max(1, |z|). Each is asserted on its documented
range.
"""

import numpy as np

from fastcurv._engine import testing_hooks as hooks

from ..certify.longdouble import LD, activation
from ..nets import ACTIVATIONS, LENGTHS, PIECEWISE_LINEAR


def true_activation(name, z):
    """Return (phi, phi', phi'') of the named activation at z in long double, with left derivatives
    at kinks.
    """
    return activation(name, z.astype(LD))


def ulps(got, true):
    """Return the largest error of `got` in units of the last place of the result `true`, also for
    subnormal numbers.
    """
    spacing = np.spacing(np.abs(true).astype(got.dtype))
    return np.max(np.abs(got.astype(LD) - true) / spacing)


def draw_arguments(dtype, n, rng):
    """Return an array of random arguments: n of every exponent, n in each of seven ranges where the
    functions are curved, and zeros and subnormals. All are so small that z^2 does not overflow.
    """
    info = np.finfo(dtype)
    log = rng.uniform(np.log10(float(info.smallest_subnormal)), 15, n)
    wide = (10.0**log * rng.choice([-1, 1], n)).astype(dtype)
    near = [
        rng.uniform(-bound, bound, n).astype(dtype)
        for bound in (0.5, 2, 6, 20, 60, 104, 745 if dtype == "float64" else 89)
    ]
    zeros = np.array(
        [0.0, -0.0, info.tiny, -info.tiny, info.smallest_subnormal, -info.smallest_subnormal], dtype
    )
    return np.concatenate([wide, *near, zeros])


# --- activations


def test_values_are_within_four_ulp(arch, dtype):
    """exp, expm1, log1p, tanh and the sigmoid are within four ULP, each tested through the
    activation that is computed from it.
    """
    for name in ["tanh", "sigmoid", "softplus", "elu"]:
        z = draw_arguments(dtype, 4000, np.random.default_rng(0))
        with np.errstate(under="ignore"):
            assert ulps(hooks.activate(arch, name, z[None])[0][0], true_activation(name, z)[0]) <= 4


def test_values_and_derivatives_are_within_four_eps(arch, dtype):
    for name in ACTIVATIONS:
        z = draw_arguments(dtype, 4000, np.random.default_rng(1))
        bound = 4 * np.finfo(dtype).eps * np.maximum(1, np.abs(z.astype(LD)))
        for got, true in zip(hooks.activate(arch, name, z[None]), true_activation(name, z)):
            assert np.all(np.abs(got[0].astype(LD) - true) <= bound)


def test_saturated_derivatives_keep_relative_accuracy(arch, dtype):
    """The derivative phi' keeps its relative accuracy where 1 - tanh^2 would be 0 or an ULP of 1,
    in float32 from |z| = 9 on.
    """
    for name in ["tanh", "sigmoid", "softplus"]:
        z = np.random.default_rng(2).uniform(-40, 40, 5000).astype(dtype)
        got, true = hooks.activate(arch, name, z[None])[1][0], true_activation(name, z)[1]
        assert np.all(np.abs(got.astype(LD) - true) <= 8 * np.finfo(dtype).eps * true)


def test_packed_pairs_are_as_accurate_as_separate_values(arch, dtype):
    """Packed pairs give phi within four ULP and phi' with relative accuracy, and equal the values
    that are unpacked from them.
    """
    for name in ["tanh", "sigmoid"]:
        rng, eps = np.random.default_rng(5), np.finfo(dtype).eps
        z = np.append(draw_arguments(dtype, 4000, rng), rng.uniform(-40, 40, 5000).astype(dtype))
        found, unpacked = hooks.pack_and_unpack(arch, name, z[None])
        with np.errstate(under="ignore"):
            a, p = true_activation(name, z)[:2]
        assert ulps(found[0][0], a) <= 4
        off = np.abs(found[1][0].astype(LD) - p)
        assert off.max() <= 4 * eps and np.all(off[-5000:] <= 8 * eps * p[-5000:])
        np.testing.assert_array_equal(found, unpacked)


def test_gelu_keeps_relative_accuracy_in_its_tail(arch, dtype):
    """In its tail gelu has relative accuracy, except that the error of the plain loops grows as
    z^2, because they round z / sqrt(2).
    """
    z = np.random.default_rng(3).uniform(-12, -1, 5000).astype(dtype)
    got, true = hooks.activate(arch, "gelu", z[None])[0][0], true_activation("gelu", z)[0]
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


def test_activations_reach_their_limits_and_have_left_derivatives_at_kinks(arch, dtype):
    """Activations of large and infinite z equal their limits, and at 0 the left derivatives are
    returned.
    """
    for name in LIMITS:
        largest = np.finfo(dtype).max
        for place, points in enumerate(
            [(-1e4, -1e30, -largest, -np.inf), (0.0, -0.0), (1e4, 1e30, largest, np.inf)]
        ):
            z = np.array([points], dtype)
            for got, want in zip(hooks.activate(arch, name, z), LIMITS[name][place]):
                np.testing.assert_allclose(
                    got, z if want is None else np.full_like(z, want), rtol=2 * np.finfo(dtype).eps
                )


def test_leaky_relu_has_the_slope_of_torch(arch, dtype):
    z = np.array([[-np.inf, -1e30, -2.0, -0.0, 0.0, 2.0, np.inf]], dtype)
    a, p, q = hooks.activate(arch, "leaky_relu", z)
    np.testing.assert_allclose(
        a, np.where(z > 0, z, np.asarray(0.01, dtype) * z), rtol=np.finfo(dtype).eps
    )
    np.testing.assert_array_equal(p, [np.where(z[0] > 0, 1, 0.01).astype(dtype)])
    assert np.all(q == 0)


def test_activations_propagate_nan_to_its_element_only(arch, dtype):
    for name in ACTIVATIONS:
        z = np.linspace(-3, 3, 33, dtype=dtype)
        clean = hooks.activate(arch, name, z[None])
        z[13] = np.nan
        spoilt = hooks.activate(arch, name, z[None])
        others = np.arange(33) != 13
        for k, (got, want) in enumerate(zip(spoilt, clean)):
            np.testing.assert_array_equal(got[0, others], want[0, others])
            constant = k == 2 and name in PIECEWISE_LINEAR or k == 1 and name == "identity"
            assert np.isnan(got[0, 13]) or constant


def test_activations_do_not_depend_on_position_in_the_array(arch, dtype):
    """Activations are bitwise identical for numbers in any row and column and for arrays of any
    length.
    """
    for name in ACTIVATIONS:
        for cols in LENGTHS:
            z = np.random.default_rng(cols).uniform(-8, 8, (5, cols)).astype(dtype)
            whole = hooks.activate(arch, name, z.reshape(1, -1))
            for got, want in zip(hooks.activate(arch, name, z), whole):
                np.testing.assert_array_equal(got.ravel(), want.ravel())


def test_odd_functions_are_exactly_odd(arch, dtype):
    z = draw_arguments(dtype, 500, np.random.default_rng(4))
    a, p, q = hooks.activate(arch, "tanh", np.stack([z, -z]))
    np.testing.assert_array_equal(a[0], -a[1])
    np.testing.assert_array_equal(np.signbit(a[0]), np.signbit(z))
    np.testing.assert_array_equal(p[0], p[1])
    np.testing.assert_array_equal(q[0], -q[1])
