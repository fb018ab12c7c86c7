"""Upper bounds on norms, against the eigenvalues themselves."""

import numpy as np
import pytest

from fastcurv.certify.arithmetic import gram_bound, stack_norms


@pytest.mark.parametrize("n", [1, 3, 256, 257, 300])
@pytest.mark.parametrize("size", [1.0, 1e-280, 1e280])
def test_the_largest_eigenvalue_of_a_gram_matrix_is_bounded(n, size, rng):
    """Closely by eigenvalues up to 256 rows; beyond, within the 32nd root of n."""
    F = rng.standard_normal((n, n // 2 + 1))
    G = F @ F.T / n
    largest = np.linalg.eigvalsh(G)[-1]
    bound = gram_bound(G * size) / size
    assert largest * (1 - 1e-13) <= bound
    assert bound <= largest * (1 + 1e-10 if n <= 256 else n ** (1 / 32))
    assert gram_bound(np.zeros((n, n))) == 0


@pytest.mark.parametrize("shape", [(4, 2, 5), (4, 5, 2), (3, 1, 1)])
@pytest.mark.parametrize("size", [1.0, 1e-290, 1e290])
def test_spectral_norms_of_a_stack_are_bounded(shape, size, rng):
    """Within the 32nd root of the shorter side."""
    K = rng.standard_normal(shape)
    exact = np.linalg.norm(K, 2, axis=(1, 2))
    bounds = stack_norms(K * size).reshape(-1) / size
    assert (exact * (1 - 1e-13) <= bounds).all()
    assert (bounds <= exact * min(shape[1:]) ** (1 / 32) * (1 + 2e-10)).all()
    assert not stack_norms(0 * K).any()
