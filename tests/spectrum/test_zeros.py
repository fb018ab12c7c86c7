"""Eigenvalues within rounding of 0, such as those of symmetries, count as neither positive nor
negative.
"""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.common.vectors import log_polynomial_growth
from fastcurv.krylov.lanczos import Recurrence
from fastcurv.spectrum.draw import sign_count_clause

from .spectra import density_of_matrix_eigenvalues, symmetric

VALUES = np.r_[-np.linspace(0.1, 1, 16), np.zeros(22), np.linspace(0.2, 3, 60)]


def test_symmetry_zeros_add_no_negative_mass(rng):
    """If 22 of 98 eigenvalues are 0 up to rounding, the mass of negative eigenvalues is that of the
    16 negative ones, and its standard error is that of half of the zeros.
    """
    values = np.linalg.eigvalsh(symmetric(rng, VALUES))
    assert (values[16:38] < 0).any() and (values[16:38] > 0).any()
    d = density_of_matrix_eigenvalues(values)
    mass = d.mass(high=0.0)
    assert d.exact and round(98 * mass.estimate) == 16
    assert abs(98 * mass.stderr - 11) < 1e-9, "half of the zeros"
    assert (
        sign_count_clause(d)
        == "16 of 98 eigenvalues negative, 60 positive, 22 zero within rounding"
    )
    assert "all eigenvalues computed" in repr(d) and "probes" not in repr(d)
    assert density_of_matrix_eigenvalues(values[:16]).mass().stderr == 0


def test_an_estimate_counts_no_zeros_as_negative(rng):
    d = fc.spectral_density(symmetric(rng, VALUES), 12, 40, rng=0)
    assert not d.exact and abs(d.mass().estimate - 16 / 98) <= 2 * d.mass().stderr + 0.02
    assert d.resolution > 0


def test_the_engine_reads_no_array_beyond_its_end():
    """For arrays of unsuitable shapes, the engine raises an error instead of reading beyond their
    end.
    """
    from fastcurv import _engine

    for wrong in ([[]], [[1.0, 2.0]], np.zeros((0, 3)), 1.0):
        for call in (
            lambda x: _engine.core.wanted_indices(x, 1, "LM") if np.ndim(x) else [][0],
            lambda x: log_polynomial_growth([1.0], [], x) if np.ndim(x) else [][0],
        ):
            with pytest.raises((ValueError, IndexError)):
                call(wrong)
    run = Recurrence(fc.testing.PrescribedSpectrum(np.arange(9.0), rng=0), 9)
    run.insert_random(np.random.default_rng(0))
    run.extend(4)
    for call in (
        lambda: run.check_convergence(5, "LA", 1e-8),
        lambda: run.drop_coupling(np.zeros(2)),
        lambda: run.replace_by_ritz_vectors(np.zeros(2), np.zeros((4, 1))),
        lambda: run.replace_pending_rows(np.zeros((1, 3))),
        lambda: (run.ritz_pairs(2, "LA"), run.ritz_vectors([4]))[1],
    ):
        with pytest.raises(ValueError, match=" must |same shape"):
            call()
