"""How results are shown, and what estimates say where there is next to nothing to say."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.common.linalg import eigh
from fastcurv.spectrum.dense import LARGEST_DENSE, dense_matrix, to_dense
from fastcurv.spectrum.density import Quadrature
from fastcurv.spectrum.trace import CountingRows, from_sums, mean_of
from fastcurv.testing import PrescribedSpectrum


def test_many_pairs_are_shown_by_their_ends():
    pairs = fc.eigsh(np.diag(np.arange(60.0)), k=40, which="LA", seed=0)
    text, page = repr(pairs), pairs._repr_html_()
    assert "16 more" in text and "16 more" in page
    assert len(text.splitlines()) == 1 + 25
    few = fc.eigsh(np.diag(np.arange(60.0)), k=24, which="LA", seed=0)
    assert "more" not in repr(few) and "more" not in few._repr_html_()


def test_an_estimate_of_many_numbers_says_its_shape():
    H = np.diag(np.arange(1.0, 40.0))
    one, many = fc.trace(H, n_probes=10, seed=0), fc.diagonal(H, n_probes=10, seed=0)
    assert "+-" in repr(one) and "shape (39,), stderr" in repr(many)
    assert repr(many)[:8] in many._repr_html_()


def test_one_sample_has_no_standard_error():
    mean, stderr = mean_of(np.array([3.0]))
    assert mean == 3 and np.isnan(stderr)
    means, errors = from_sums(np.array([2.0, 4.0]), np.array([4.0, 16.0]), 1)
    assert np.array_equal(means, [2, 4]) and np.isnan(errors).all()


def test_an_estimate_beyond_float64_is_refused():
    apply = CountingRows(np.diag([1e300, 1e300]))
    apply.exponent = 100
    with pytest.raises(ValueError, match="beyond float64"):
        apply.estimate(1e300, 0.0, "exact")


def test_known_pairs_that_hold_all_the_weight_leave_zero():
    rule = Quadrature(np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    rest = rule.without(np.array([1.1]))
    assert np.array_equal(rest.nodes, [0]) and np.array_equal(rest.weights, [1])
    half = Quadrature(np.array([1.0, 2.0]), np.array([0.5, 0.5])).without(np.array([0.9]))
    assert np.array_equal(half.nodes, [2]) and np.array_equal(half.weights, [1])


def test_nothing_is_deflated_by_no_columns():
    H = np.diag(np.arange(1.0, 30.0))
    plain = fc.spectral_density(H, n_probes=2, n_steps=10, seed=0)
    same = fc.spectral_density(H, n_probes=2, n_steps=10, seed=0, against=np.zeros((29, 0)))
    assert np.array_equal(plain.density, same.density) and same.n_products == plain.n_products


def test_the_smallest_and_the_largest_matrices():
    empty = eigh(np.zeros((0, 0)))
    assert empty.values.shape == (0,) and empty.error == 0
    with pytest.raises(ValueError, match="wanted a square one"):
        eigh(np.zeros((2, 3)))
    huge = PrescribedSpectrum(np.arange(float(LARGEST_DENSE + 1)))
    with pytest.raises(ValueError, match=f"wanted n <= {LARGEST_DENSE}"):
        to_dense(huge)


@pytest.mark.parametrize("bounds", [np.full(5, np.nan), np.zeros(4)])
def test_bounds_on_columns_that_are_none(bounds):
    class Bounded(PrescribedSpectrum):
        def column_bounds(self):
            return bounds

    with pytest.raises(ValueError, match="bounds on its columns"):
        dense_matrix(Bounded(np.arange(5.0)))


def test_of_two_products_the_better_known_is_kept():
    """Column j of the products is as good as its bound; where both are alike, the mean."""

    class Half:
        shape, dtype = (3, 3), np.dtype(float)

        def __matmul__(self, V):
            return np.array([[2.0, 1.0, 0.0], [1.5, 2.0, 0.0], [0.0, 0.5, 2.0]]) @ V

        def column_bounds(self):
            return np.array([0.0, 1.0, 1.0])

    made = dense_matrix(Half())
    assert np.array_equal(made.A, [[2.0, 1.5, 0.0], [1.5, 2.0, 0.25], [0.0, 0.25, 2.0]])
    assert np.allclose(made.asymmetry, [0.5, 0.5**0.5, 0.5])
