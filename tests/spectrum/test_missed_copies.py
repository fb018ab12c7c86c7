"""What `eigsh` says of copies of multiple eigenvalues, which no single start can see."""

import numpy as np
import pytest

from fastcurv import eigsh
from fastcurv.krylov.risk import lanczos_reach, lanczos_risk

from .spectra import picked


def dense(values, rng):
    """A matrix with these eigenvalues, in a random basis."""
    Q = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    A = (Q * values) @ Q.T
    return (A + A.T) / 2


@pytest.mark.parametrize("which", ["SA", "LA", "LM"])
@pytest.mark.parametrize("n", [4, 9, 33, 64])
def test_none_is_missed_where_the_space_is_small(n, which):
    """Up to 64 dimensions the second start may go to the end."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        values = np.sort(np.repeat(rng.standard_normal(-(-n // 3)), 3)[:n] * 10.0)
        pairs = eigsh(dense(values, rng), k=3, which=which, seed=seed)
        assert pairs.converged.all() and pairs.probed and pairs.unseen == 0
        assert np.allclose(pairs.values, picked(values, 3, which), atol=1e-6)
        assert pairs.n_products <= 2 * n
        assert "copies" not in repr(pairs)


@pytest.mark.parametrize(
    ("near", "options"), [(8e-8, {}), (1e-4, {"tol": 1e-4, "relative": "value"})]
)
def test_copies_within_the_tolerance_of_one_another_are_told_apart(near, options):
    """Four true eigenvalues of another sign stood in the place of copies, and none was missed."""
    for n in (30, 90):
        values = np.repeat([-10.0, -near / 4, near], n // 3)
        pairs = eigsh(np.diag(values), 8, "LA", seed=0, **options)
        off = np.abs(pairs.values - near).max()
        assert pairs.converged.all() and pairs.probed
        assert off <= pairs.unseen + pairs.residuals.max()
        assert n > 64 or pairs.unseen == 0


def test_what_the_look_leaves_open_holds_at_its_risk():
    """Pairs deep inside a wide spectrum: what was missed lies no further out than is said."""
    wrong = missed = said = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        values = np.sort(np.concatenate([np.repeat(rng.uniform(-3, 0, 60), 2), [40, 50, 60]]))
        pairs = eigsh(dense(values, rng), k=4, which="SA", seed=seed)
        gap = np.max(pairs.values - picked(values, 4, "SA"))
        missed += gap > 1e-6
        wrong += gap > pairs.unseen + 1e-6
        said += "not excluded" in repr(pairs) or "at a risk of 5%" in repr(pairs)
    assert missed and wrong <= 2 and said >= missed


@pytest.mark.parametrize("options", [{"probe": False}, {"v0": np.ones(100)}])
def test_nothing_is_said_where_nobody_looked(options):
    rng = np.random.default_rng(0)
    pairs = eigsh(dense(np.linspace(0, 1, 100), rng), k=3, which="LA", seed=0, **options)
    assert not pairs.probed and pairs.unseen == np.inf
    assert "missed copies of multiple eigenvalues not excluded" in repr(pairs)


def test_reach_is_the_inverse_of_the_risk():
    for n, k, risk in ((100, 5, 0.05), (10_000, 300, 1e-3)):
        eps = lanczos_reach(n, k, risk)
        assert lanczos_risk(n, k, eps * (1 + 1e-9)) <= risk < lanczos_risk(n, k, eps * (1 - 1e-6))
    assert lanczos_reach(10, 0, 0.05) == np.inf and lanczos_reach(10, 10, 0.05) == 0
