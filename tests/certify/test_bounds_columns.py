"""Rounding bounds for columns of dense matrices, for blocks and for activations, and norms without
overflow.
"""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine as engine
from fastcurv._engine import testing_hooks as hooks
from fastcurv.certify import arithmetic as rounding_local

from ..nets import DTYPES
from .bound_cases import KINDS, ORACLE, problem
from .longdouble import LD, Truth, activation, size

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 3)

# --- columns and blocks


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_hold_for_every_column(dtype, kind):
    """The rounding bound on every column of the dense matrix holds against long double, and the
    norm of all bounds exceeds that of all errors by at most a factor of 3e4.
    """
    ob, theta, v = problem([4, 5, 5, 3], "silu", "cross_entropy", dtype, l2=0.1, residual=True)
    H, truth = getattr(ob, KINDS[kind])(theta), Truth(ob, theta)
    bounds, found = H.column_error_bounds(), []
    for j, e in enumerate(np.eye(ob.n_params, dtype=dtype)):
        found.append(float(size(H @ e - truth.product(e, kind))))
        assert found[-1] <= bounds[j] * (1 + ORACLE / np.finfo(dtype).eps)
    assert np.linalg.norm(bounds) <= 3e4 * np.linalg.norm(found)
    assert np.array_equal(
        H.restrict(layers=1).column_error_bounds(), bounds[H.restrict(layers=1).indices]
    )


def test_the_bound_of_a_block_holds_for_its_products():
    for dtype in DTYPES:
        ob, theta, v = problem([4, 6, 3], "gelu", "mse", dtype)
        block = ob.hessian(theta).restrict(layers=[1])
        full = np.zeros_like(v)
        full[block.indices] = v[block.indices]
        error = size((block @ v[block.indices]) - Truth(ob, theta).product(full)[block.indices])
        assert error <= block.rounding_bound(v[block.indices]) * (1 + ORACLE / np.finfo(dtype).eps)


# --- activations and norms


@pytest.mark.parametrize("name", engine.ACTIVATIONS)
def test_activations_are_as_accurate_as_bounds_assume(dtype, name):
    rng = np.random.default_rng(0)
    z = [rng.uniform(-b, b, 500) for b in (0.01, 1, 6, 30, 80)] + [10.0 ** rng.uniform(-30, 1, 500)]
    z = np.concatenate(z).astype(dtype)[None]
    with np.errstate(under="ignore"):
        truth = activation(name, z.astype(LD))
    for arch in engine.available_archs():
        r = rounding_local.RoundingModel(
            np.dtype(dtype), {"arch": arch, "chunk": 1, "panel": 0, "groups": 0}, 1
        )
        phi = rounding_local.ActivationDerivatives(
            name, rounding_local.exact_enclosure(z, r), skip=True
        )
        bounds = [np.zeros(z.shape) if x is None else x.dx.E for x in (phi.a, phi.p, phi.q)]
        for got, true, bound in zip(hooks.activate(arch, name, z), truth, bounds):
            assert np.all(np.abs(got - true) <= bound * (1 + ORACLE / np.finfo(dtype).eps))


def test_norms_are_safe_from_underflow_and_overflow():
    E = np.array([[3e-200, 4e-200], [3e200, 4e200], [3.0, 4.0], [0.0, 0.0], [np.inf, 1.0]])
    np.testing.assert_allclose(rounding_local.row_norms(E)[:, 0], [5e-200, 5e200, 5, 0, np.inf])


@pytest.mark.parametrize("kind", ["hessian", "ggn", "empirical_fisher"])
def test_bound_of_a_block_depends_on_its_own_products_only(kind):
    """The float32 bound of a block, which is measured from products of that block, holds against
    long double and needs no product of the whole matrix.
    """
    for seed in range(6):
        rng = np.random.default_rng(seed)
        model = fc.MLP([5, 20, 2], "softplus", bias=False, dtype="float32")
        X, y = rng.standard_normal((16, 5)), rng.integers(2, size=16)
        ob = fc.Objective(model, X, y, "cross_entropy")
        theta = model.init(rng=seed)
        whole = getattr(ob, kind)(theta)
        B = whole.restrict(layers=[1])
        truth = Truth(ob, theta)
        for _ in range(4):
            x = rng.standard_normal(B.shape[0]).astype(np.float32)
            v = np.zeros(model.n_params)
            v[B.indices] = x
            off = B @ x - truth.product(v, kind.removeprefix("empirical_"))[B.indices]
            spent = whole.n_products
            assert np.linalg.norm(off.astype(float)) <= B.rounding_bound(x)
            assert whole.n_products == spent
