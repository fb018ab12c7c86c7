"""Invalid dtypes, models, rows and operators are rejected with short errors, and rarely used valid
forms are accepted.
"""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import fastcurv as fc
from fastcurv.certify import rounding_bound
from fastcurv.certify.loss_infimum import loss_lower_bound, ray_to_infimum
from fastcurv.common.checks import all_finite, as_numpy, check_symmetric_operator
from fastcurv.network.rows import ArraySource

X, Y = np.arange(24.0).reshape(12, 2), np.zeros((12, 1))
EYE, ONE = np.eye(2), np.ones((1, 2))


def assert_rejected(call, kind, words):
    with pytest.raises(kind, match=words) as error:
        call()
    assert "\n" not in str(error.value)


# --- rows


def test_rows_that_change_between_passes_raise():
    class Growing:
        shape, dtype = (12, 2), X.dtype

        def __getitem__(self, rows):
            return X[rows]

    growing = Growing()
    source = ArraySource(growing, Y, None)
    assert sum(len(block[0]) for block in source.blocks(5)) == 12
    growing.shape = (13, 2)
    assert_rejected(lambda: list(source.blocks(5)), ValueError, "got 13 rows instead of 12")


# --- operators


def problem(**options):
    model = fc.MLP([2, 3, 1])
    return fc.Objective(model, X / 10, Y, "mse", **options), model.init(rng=0)


@pytest.mark.parametrize("skips", [(True,), (False, True)])
def test_skips_of_a_subclass_that_do_not_fit_are_rejected(skips):
    """A model whose skip connections are too few, or join layers of other widths."""
    model = type("Skipping", (fc.MLP,), {"skips": skips})([2, 2, 3, 1])
    X = np.ones((4, 2))
    for call in (
        lambda: fc.Objective(model, X, X[:, :1]).value(np.ones(model.n_params)),
        lambda: model.predict(np.ones(model.n_params), X),
        lambda: model.input_jacobian(np.ones(model.n_params), X),
    ):
        with pytest.raises(ValueError, match="skips of the model must have a bool for each"):
            call()


def test_operators_are_multiplied_from_both_sides():
    ob, theta = problem()
    H, n = ob.hessian(theta), ob.n_params
    A = H @ np.eye(n)
    other = aslinearoperator(np.diag(np.arange(1.0, n + 1)))
    wanted = np.arange(1.0, n + 1)[:, None] * A
    for product in (other @ H, H.__rmatmul__(other)):
        assert np.allclose(product @ np.eye(n), wanted, rtol=1e-12, atol=1e-14)
    assert np.allclose(np.diag(np.arange(1.0, n + 1)) @ H, wanted, rtol=1e-12, atol=1e-14)


def test_the_rounding_bound_of_a_product_that_overflows_is_infinite():
    ob, theta = problem()
    H = ob.hessian(theta).shift(1.0)
    assert 0 < rounding_bound(H, np.ones(ob.n_params)) < 1e-10
    for number in (1e308, np.nan, np.inf):
        assert rounding_bound(H, np.full(ob.n_params, number)) == np.inf


def test_asymmetric_operators_are_rejected():
    wide = LinearOperator((2, 3), matvec=lambda v: v[:2], dtype=float)
    assert_rejected(lambda: check_symmetric_operator(wide), ValueError, r"\(2, 3\)")
    turning = LinearOperator((2, 2), matvec=lambda v: v, dtype=complex)
    assert_rejected(lambda: check_symmetric_operator(turning), TypeError, "complex")
    late = np.eye(2000)
    late[-1, -1] = np.nan
    assert_rejected(lambda: check_symmetric_operator(late), ValueError, "NaN or infinity")
    late[-1, -1], late[-1, 0] = 1.0, 0.5
    assert_rejected(lambda: check_symmetric_operator(late), ValueError, "differ .* by up to 0.5")


def test_vectors_whose_squares_overflow_are_rejected():
    large = np.full(5000, 1e200)
    assert all_finite(large)
    large[77] = np.inf
    assert not all_finite(large)
    assert_rejected(lambda: as_numpy([[1.0], [1.0, 2.0]], "x"), ValueError, "x")


class Column:
    """A column of a data frame with the entries 1 and a missing value, as pandas has it."""

    def __array__(self, dtype=None, copy=None):
        return np.array([1.0, None], dtype=object)

    def to_numpy(self, dtype, na_value):
        return np.array([1.0, na_value], dtype=dtype)


class Lists:
    """An array whose entries are lists of unequal lengths."""

    def __array__(self, dtype=None, copy=None):
        made = np.empty(2, object)
        made[:] = [[1.0], [1.0, 2.0]]
        return made


class Tensor:
    """A tensor of a dtype that NumPy lacks."""

    dtype = "torch.bfloat16"

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Got unsupported ScalarType BFloat16")


def test_arrays_of_objects_are_converted_or_rejected():
    """Missing values of a data frame are NaN. Arrays of lists, and dtypes that NumPy lacks, are
    rejected.
    """
    assert np.array_equal(as_numpy(Column(), "x"), [1.0, np.nan], equal_nan=True)
    assert_rejected(
        lambda: as_numpy(Lists(), "x"),
        TypeError,
        "got a Lists .its entries",
    )
    assert_rejected(lambda: as_numpy(csr_matrix(X), "x"), TypeError, "toarray")
    structured = np.zeros(X.shape, [("a", float)])
    assert_rejected(lambda: fc.Objective(fc.MLP([2, 1]), structured, Y), TypeError, "real numbers")
    assert_rejected(
        lambda: as_numpy(Tensor(), "x"),
        TypeError,
        "x must hold real numbers, got .*Tensor.*unsupported ScalarType BFloat16",
    )


# --- lower bounds of a loss


def test_no_lower_bound_of_a_loss_for_targets_outside_its_range():
    ob = fc.Objective(fc.MLP([2, 3, 2]), X, np.tile([2.0, -1.0], (12, 1)), "cross_entropy")
    assert loss_lower_bound(ob) == -np.inf
    assert ray_to_infimum(ob, ob.model.init(rng=0)) is None
    halves = fc.Objective(fc.MLP([2, 3, 1]), X, Y + 0.5, "binary_cross_entropy")
    assert loss_lower_bound(halves) == 0
    idle = fc.Objective(fc.MLP([2, 3, 2]), X, np.arange(12) % 2, sample_weight=np.zeros(12))
    assert ray_to_infimum(idle, idle.model.init(rng=0)) is None
