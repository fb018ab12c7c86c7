"""Single steps: Newton's step, the saddle-free Newton step, `escape`, and the lowest curvature."""

import warnings

import numpy as np
import pytest
import scipy.linalg

from fastcurv.optimize.escape import escape, lowest_curvature
from fastcurv.optimize.steps import IndefiniteHessianWarning, newton_step, saddle_free_newton_step
from fastcurv.testing import (
    FunctionObjective,
    PrescribedSpectrum,
    QuadraticObjective,
    lecture_toy,
)


def symmetric(n, rng, dtype=np.float64):
    A = rng.standard_normal((n, n))
    return ((A + A.T) / 2).astype(dtype)


@pytest.mark.parametrize("n", [1, 2, 7, 64])
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_newton_step_solves_the_damped_system(n, damping):
    rng = np.random.default_rng(n)
    A = symmetric(n, rng)
    A = A @ A + np.eye(n)
    g = rng.standard_normal(n)
    p = newton_step(A, g, damping)
    assert np.linalg.norm((A + damping * np.eye(n)) @ p + g) <= 1e-10 * np.linalg.norm(g)


@pytest.mark.parametrize("step", [newton_step, saddle_free_newton_step])
def test_the_krylov_step_agrees_with_the_dense_one(step):
    """For n = 600, above the dense limit, the step from a Krylov space agrees with that of a dense
    eigendecomposition to 5e-3, with fewer than 200 products.
    """
    values = np.concatenate([[-3.0, -2.0], np.linspace(1.0, 4.0, 598)])
    H = PrescribedSpectrum(values, rng=3)
    g = np.random.default_rng(4).standard_normal(600)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IndefiniteHessianWarning)
        p = step(H, g, 0.1)
    spent = H.n_products
    w, U = np.linalg.eigh(H @ np.eye(600))
    curvature = np.abs(w) + 0.1 if step is saddle_free_newton_step else w + 0.1
    exact = -U @ ((U.T @ g) / curvature)
    assert np.linalg.norm(p - exact) <= 5e-3 * np.linalg.norm(exact)
    assert spent < 200


def test_newton_step_reports_an_indefinite_hessian():
    H = np.diag([1.0, -2.0])
    with pytest.warns(IndefiniteHessianWarning, match="curvature in some direction is -2"):
        assert np.allclose(newton_step(H, np.array([1.0, 1.0])), [-1.0, 0.5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        newton_step(H, np.array([1.0, 1.0]), damping=3.0)
        newton_step(np.diag([1.0, 2.0]), np.array([1.0, 1.0]))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_saddle_free_step_is_the_inverse_of_the_matrix_absolute_value(dtype):
    rng = np.random.default_rng(5)
    A, g = symmetric(20, rng, dtype), rng.standard_normal(20).astype(dtype)
    p = saddle_free_newton_step(A, g, damping=0.05)
    modulus = scipy.linalg.sqrtm(A.astype(float) @ A.astype(float)).real
    assert p.dtype == dtype
    assert np.linalg.norm((modulus + 0.05 * np.eye(20)) @ p + g) <= 1e4 * np.finfo(
        dtype
    ).eps * np.linalg.norm(g)
    assert p @ g < 0


def test_a_step_from_zero_gradient_is_zero():
    assert not newton_step(np.eye(3), np.zeros(3)).any()
    assert not saddle_free_newton_step(np.eye(3), np.zeros(3)).any()


def test_escape_follows_the_lecture_toy_along_its_diagonal():
    ob, theta = lecture_toy(), np.zeros(2)
    found = escape(ob, theta)
    assert found.success and not theta.any()
    assert found.fun == ob.value(found.x) and found.fun <= 1e-6
    assert np.allclose(np.abs(found.direction), 2**-0.5, atol=1e-6)
    assert found.curvature == pytest.approx(-2.0)
    assert np.allclose(found.x, found.step * found.direction)
    assert (
        abs(abs(found.step) - 2**0.5) <= 1e-2
    )  # to the valley w1 w2 = 1; the length of Newton's step would be 1/2


def test_escape_finds_the_lower_of_two_directions():
    """For x^4 - x^2 + x^3/2 + y^2, where both directions of x lead to a lower loss, `escape`
    reaches the global minimum at negative x, for any initial direction.
    """

    def hessian(t):
        return np.array([[12 * t[0] ** 2 - 2 + 3 * t[0], 0.0], [0.0, 2.0]])

    ob = FunctionObjective(
        2,
        lambda t: t[0] ** 4 - t[0] ** 2 + t[0] ** 3 / 2 + t[1] ** 2,
        lambda t: np.array([4 * t[0] ** 3 - 2 * t[0] + 1.5 * t[0] ** 2, 2 * t[1]]),
        hessian,
    )
    for direction in (None, np.array([1.0, 0.0]), np.array([-3.0, 0.0])):
        found = escape(ob, np.zeros(2), direction)
        assert found.success and found.x[0] < -0.8
        assert found.fun == pytest.approx(-0.51936, abs=1e-3)


def test_escape_at_a_minimum_reports_it_and_stays():
    found = escape(QuadraticObjective(np.diag([1.0, 2.0])), np.zeros(2))
    assert not found.success and found.notes[0].key == "no_negative_curvature"
    found = escape(QuadraticObjective(np.diag([1.0, 2.0])), np.zeros(2), np.array([1.0, 0.0]))
    assert not found.success and found.step == 0.0 and not found.x.any()


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: newton_step(np.ones((2, 3)), np.ones(2)), ValueError, r"must have shape \(n, n\)"),
        (lambda: newton_step(np.eye(2), np.ones(3)), ValueError, "g must have shape"),
        (lambda: newton_step(np.eye(2), np.array([1.0, np.nan])), ValueError, "NaN"),
        (lambda: newton_step(np.eye(2), np.ones(2) * 1j), TypeError, "real"),
        (lambda: newton_step(np.eye(2), np.ones(2), damping=-1.0), ValueError, "damping"),
        (
            lambda: saddle_free_newton_step(np.eye(2), np.ones(2), k=0),
            ValueError,
            "k must be .*got 0",
        ),
        (lambda: escape(lecture_toy(), np.zeros(3)), ValueError, "theta"),
        (
            lambda: escape(lecture_toy(), np.zeros(2), np.zeros(2)),
            ValueError,
            "direction must not be zero",
        ),
    ],
)
def test_invalid_input_raises_a_one_sentence_error(call, error, words):
    """Each invalid argument raises the expected error, whose message names the argument."""
    with pytest.raises(error, match=words):
        call()


def test_the_lowest_curvature_is_found_orthogonal_to_the_gradient():
    """For n = 5000 and an eigenvalue of -1e-2 below a bulk in [0, 1], `lowest_curvature` finds
    negative curvature from a random start, and in at most 12 products from the eigenvector.
    """
    values = np.concatenate([[-1e-2], np.linspace(0.0, 1.0, 4999)])
    H = PrescribedSpectrum(values, rng=1)
    lowest = H.eigenvector(0)
    for starts, most in (((), 150), ([lowest], 12)):
        curvature, v, rounding, spent = lowest_curvature(
            H, np.random.default_rng(0), starts, max_products=300
        )
        assert curvature < -rounding < 0 and spent <= most
        assert (
            curvature == pytest.approx(v @ (H @ v), abs=1e-12)
            and -1e-2 - 1e-12 <= curvature < -5e-3
        )
