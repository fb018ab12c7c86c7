"""What `eigsh` is given: signals, precisions, matrices, wrong arguments."""

import numpy as np
import pytest
import scipy.sparse.linalg as sla
from scipy import sparse

from fastcurv.spectrum.eigsh import eigsh

from .spectra import SPECTRA, Prescribed, picked, true_residuals


def test_ctrl_c_keeps_what_is_known(rng):
    spectrum = SPECTRA["uniform"](rng)

    class Interrupted(Prescribed):
        def _matvec(self, v):
            if self.n_products == 40:
                raise KeyboardInterrupt
            return super()._matvec(v)

    pairs = eigsh(Interrupted(spectrum, seed=0), 3, "LA", seed=0)
    assert (
        pairs.interrupted
        and len(pairs) == 3
        and not pairs.converged.all()
        and pairs.n_products == 40
    )
    assert (
        true_residuals(Prescribed(spectrum, seed=0), pairs) <= pairs.residuals * (1 + 1e-6)
    ).all()


def test_ctrl_c_from_the_keyboard(rng):
    """A signal in the middle of a product ends it; the handler is the old one again afterwards."""
    import os
    import signal

    class Pressed(Prescribed):
        def _matvec(self, v):
            if self.n_products == 25:
                os.kill(os.getpid(), signal.SIGINT)
            return super()._matvec(v)

    before = signal.getsignal(signal.SIGINT)
    pairs = eigsh(Pressed(SPECTRA["uniform"](rng), seed=0), 3, "LA", seed=0)
    assert pairs.interrupted and len(pairs) == 3 and pairs.n_products == 25
    assert signal.getsignal(signal.SIGINT) is before


def test_values_that_are_not_finite_are_an_error(rng):
    class Broken(Prescribed):
        def _matvec(self, v):
            return super()._matvec(v) * (np.nan if self.n_products > 5 else 1)

    with pytest.raises(ValueError, match="not finite"):
        eigsh(Broken(np.arange(100.0), seed=0), 3)


def test_mixed_precision_gives_float64_residuals(rng):
    for name, k, which in (
        ("geometric", 6, "LM"),
        ("hessian", 8, "BE"),
        ("identity", 3, "LA"),
        ("zero", 2, "SA"),
    ):
        spectrum = SPECTRA[name](rng)
        op = Prescribed(spectrum, seed=0)
        pairs = eigsh(op, k, which, tol=1e-10, precision="mixed", seed=0)
        assert pairs.converged.all() and pairs.vectors.dtype == np.float64
        assert (true_residuals(op, pairs) <= pairs.residuals + 1e-13 * np.abs(spectrum).max()).all()
        assert np.allclose(
            pairs.values, picked(spectrum, k, which), atol=1e-9 * max(1, np.abs(spectrum).max())
        )
        assert 0 < pairs.n_products - pairs.n_low < pairs.n_products
    few = eigsh(
        Prescribed(SPECTRA["hessian"](rng), seed=0), 3, "LA", tol=1e-10, precision="mixed", seed=0
    )
    assert few.n_products - few.n_low <= 5 * 3, "a few float64 products a pair"


def test_sparse_and_dense_matrices_are_operators(rng):
    import scipy.sparse as sp

    A = rng.standard_normal((40, 40))
    A = A + A.T
    expected = np.linalg.eigvalsh(A)
    for matrix in (A, sp.csr_array(A), np.asfortranarray(A)):
        assert np.allclose(eigsh(matrix, 3, "SA", seed=0).values, expected[:3])


def test_bad_input():
    A = np.diag(np.arange(5.0))
    for kwargs, error in [
        ({"k": 0}, ValueError),
        ({"k": 6}, ValueError),
        ({"k": 2.0}, TypeError),
        ({"which": "SM"}, ValueError),
        ({"which": 3}, TypeError),
        ({"tol": -1}, ValueError),
        ({"tol": np.nan}, ValueError),
        ({"max_products": 0}, ValueError),
        ({"v0": np.zeros(5)}, ValueError),
        ({"v0": np.ones(4)}, ValueError),
        ({"v0": np.full(5, np.nan)}, ValueError),
        ({"against": np.ones((4, 1))}, ValueError),
        ({"against": np.eye(5)}, ValueError),
        ({"max_basis": 2}, ValueError),
        ({"precision": "half"}, ValueError),
        ({"seed": "x"}, TypeError),
        ({"relative": "none"}, ValueError),
    ]:
        with pytest.raises(error) as caught:
            eigsh(A, **{"k": 1, **kwargs})
        assert "wanted" in str(caught.value) and "\n" not in str(caught.value), kwargs
    for op, error in [
        (np.ones((2, 3)), ValueError),
        (np.ones(3), ValueError),
        (1j * np.eye(2), TypeError),
        ("x", TypeError),
        (np.triu(np.ones((3, 3))), ValueError),
        (np.full((2, 2), np.nan), ValueError),
    ]:
        with pytest.raises(error):
            eigsh(op, 1)
    with pytest.raises(TypeError, match="astype"):
        eigsh(sla.aslinearoperator(A), 1, precision="mixed")
    assert eigsh(A, 1).values[0] == pytest.approx(4)


@pytest.mark.parametrize("form", ["dia", "coo", "csc", "bsr", "lil", "dok"])
def test_every_sparse_format(form):
    A = sparse.diags(np.arange(50.0)).asformat(form)
    assert np.allclose(eigsh(A, 2, "LA").values, [48, 49])


def test_what_float32_cannot_tell_apart_is_not_said_to_be_seen():
    """Four values next to the top, closer than float32's products are right."""
    rng = np.random.default_rng(0)
    for seed in range(12):
        spectrum = np.sort(np.r_[rng.uniform(-1, 0.5, 60), 1 - 10.0 ** rng.uniform(-9, -4, 4)])
        op = Prescribed(spectrum, seed=seed)
        pairs = eigsh(op, 2, "LA", precision="mixed", seed=seed)
        assert pairs.converged.all() and pairs.unseen >= 1.9e-5
        assert np.abs(pairs.values - spectrum[-2:]).max() <= pairs.unseen
