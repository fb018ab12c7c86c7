"""Inputs of `eigsh` and other functions of spectra: interrupts, matrices in every format, and
invalid arguments.
"""

import numpy as np
import pytest
import scipy.sparse.linalg as sla
from scipy import sparse

import fastcurv as fc
from fastcurv import eigsh

from .spectra import SPECTRA, Prescribed, true_residuals


def test_ctrl_c_returns_the_pairs_found(rng):
    spectrum = SPECTRA["uniform"](rng)

    class Interrupted(Prescribed):
        def _matvec(self, v):
            if self.n_products == 40:
                raise KeyboardInterrupt
            return super()._matvec(v)

    pairs = eigsh(Interrupted(spectrum, rng=0), 3, "LA", rng=0)
    assert pairs.interrupted and len(pairs) == 3 and pairs.n_products == 40
    assert not pairs.converged.all()
    true = true_residuals(Prescribed(spectrum, rng=0), pairs)
    assert (true <= pairs.residuals * (1 + 1e-6)).all()


@pytest.mark.parametrize("more", [-5, 1, 400])
def test_products_of_another_shape_raise(more):
    class Wrong(sla.LinearOperator):
        def __init__(self):
            super().__init__(np.float64, (40, 40))

        def _matvec(self, v):
            return v

        def _matmat(self, V):
            return np.ones((40, V.shape[1] + more))

    with pytest.raises(ValueError, match="must have the shape of V"):
        eigsh(Wrong(), 3, rng=0)


def test_a_misaligned_matrix_has_its_eigenvalues(rng):
    """A misaligned matrix has the eigenvalues of an aligned copy."""
    A = rng.standard_normal((120, 120))
    A += A.T
    raw = np.frombuffer(bytearray(A.nbytes + 1), np.float64, offset=1, count=A.size)
    shifted = raw.reshape(A.shape)
    shifted[...] = A
    assert not shifted.flags.aligned
    found, wanted = eigsh(shifted, 3, rng=0), eigsh(A, 3, rng=0)
    assert np.allclose(found.values, wanted.values, rtol=1e-12)


def test_products_that_are_not_finite_raise(rng):
    class Broken(Prescribed):
        def _matvec(self, v):
            return super()._matvec(v) * (np.nan if self.n_products > 5 else 1)

    with pytest.raises(ValueError, match="must be finite|not finite"):
        eigsh(Broken(np.arange(100.0), rng=0), 3)


@pytest.mark.parametrize("form", ["C", "F", "dia", "coo", "csc", "csr", "bsr", "lil", "dok"])
def test_eigsh_accepts_matrices(form, rng):
    A = rng.standard_normal((40, 40))
    A = A + A.T
    other = np.array(A, order=form) if form in "CF" else sparse.coo_array(A).asformat(form)
    assert np.allclose(eigsh(other, 3, "SA", rng=0).values, np.linalg.eigvalsh(A)[:3])


@pytest.mark.parametrize("numbers", [float, object])
def test_eigsh_accepts_operators_with_matvec_alone(numbers, rng):
    """An operator needs a shape, a dtype and products with one vector, which may be an array of
    Python numbers.
    """
    A = rng.standard_normal((40, 40))
    A = A + A.T

    class Minimal:
        shape, dtype = A.shape, A.dtype

        def matvec(self, v):
            return (A @ v).astype(numbers)

    assert np.allclose(eigsh(Minimal(), 3, "SA", rng=0).values, np.linalg.eigvalsh(A)[:3])


A = np.diag(np.arange(6.0))
BAD = {  # (function, arguments) by type of error
    ValueError: [
        *((eigsh, {"op": A, "k": 1, **words}) for words in (
            {"k": 0}, {"k": 7}, {"which": "SM"}, {"tol": -1}, {"tol": np.nan}, {"max_products": 0},
            {"v0": np.zeros(6)}, {"v0": np.ones(5)}, {"v0": np.full(6, np.nan)},
            {"max_basis": 2},
            {"op": np.ones((2, 3))},
            {"op": np.ones(3)}, {"op": np.triu(np.ones((3, 3)))}, {"op": np.full((2, 2), np.nan)},
        )),
        *((fc.spectral_density, {"op": A, **words}) for words in (
            {"n_probes": 0}, {"axis": "loglog"}, {"width": -1}, {"grid": [1, 0]},
        )),
        (fc.trace, {"op": A, "n_probes": 0}),
        (fc.trace, {"op": A, "n_probes": 3, "method": "best"}),
        (fc.diagonal, {"op": A, "n_probes": 4, "method": "hutch++"}),
        (fc.inertia, {"op": np.ones((2, 3))}),
        (fc.eigvalsh, {"op": np.array([[0, 1], [0, 0]])}),
    ],
    TypeError: [
        *((eigsh, {"op": A, "k": 1, **words}) for words in (
            {"k": 2.0}, {"which": 3}, {"rng": "x"}, {"op": 1j * np.eye(2)}, {"op": "x"},
        )),
        (fc.spectral_density, {"op": A, "n_probes": 2, "n_steps": 2.5}),
        (fc.frobenius_norm, {"op": A, "rng": 1.5}),
        (fc.trace, {"op": "A"}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_eigsh_rejects_invalid_arguments(kind):
    """Invalid arguments raise an error of one line that states what is accepted."""
    for call, words in BAD[kind]:
        with pytest.raises(kind) as caught:
            call(**words)
        assert " must " in str(caught.value) and "\n" not in str(caught.value), (call, words)
