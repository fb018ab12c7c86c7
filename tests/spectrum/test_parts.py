"""Parts of spectral functions tested separately: searches, probes and sums."""

import warnings

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.common.linalg import wanted_indices
from fastcurv.common.progress import show_bar
from fastcurv.common.vectors import dot, norm
from fastcurv.krylov.lanczos import Recurrence, kept_ritz_indices
from fastcurv.spectrum.density import run_probe
from fastcurv.spectrum.eigsh import Outcome, ThickRestartSearch
from fastcurv.spectrum.options import EigshOptions

from .spectra import SPECTRA, Prescribed, diagonal

pytestmark = pytest.mark.by_day(share=1 / 3)


def test_sign_probes_in_the_deflated_space_are_drawn_again(shown=None):
    """In two dimensions, sign probes that are multiples of the deflated vector (1, 1), which are
    half of all, are drawn again.
    """
    against = np.full((1, 2), 0.5**0.5)
    for seed in range(8):
        run = Recurrence(diagonal([1.0, 3.0]), 2, against=against)
        with show_bar(None, "", False) as shown:
            run_probe(run, np.random.default_rng(seed), 1, shown)
        assert run.m == 1 and run.T[0, 0] == pytest.approx(2.0, rel=1e-14)
        assert np.allclose(np.abs(run.rows[0]), 0.5**0.5, rtol=1e-14)


@pytest.mark.parametrize("which", ["LA", "SA", "LM", "BE"])
def test_a_restart_keeps_wanted_pairs_and_their_neighbours(which):
    """A restart keeps the pairs that a larger k would select. Distances of wanted values from the
    innermost one, and the test whether they exceed the tolerance, follow their definitions.
    """
    values = np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0])
    for k in (1, 3, 4):
        kept = kept_ritz_indices(values, k, which, 5)
        assert {*wanted_indices(values, k, which)} <= {*kept} and k <= len(kept) <= 5
        assert np.array_equal(kept, wanted_indices(values, len(kept), which))
    few = values[wanted_indices(values, 4, which)]
    expected = {
        "LA": few - 0.0, "SA": 0.5 - few, "LM": np.abs(few) - 1.0,
        "BE": np.array([1.0, 0.0, 0.0, 2.0]),
    }[which]  # fmt: skip
    run = Recurrence(diagonal(values), 6)
    for tol, noise in ((0.3, 0.1), (0.1, 0.4)):
        run.scale, run.noise = 3.0, noise
        options = EigshOptions(4, which, run.dtype, tol, 9, None, True)
        search = ThickRestartSearch(run, options, np.random.default_rng(0), 0.0, quick=True)
        distance, far, near = search.distances_to_innermost(few)
        assert np.array_equal(distance, expected)
        own = max(tol * 3.0, 2 * noise)
        assert np.array_equal(far, expected > 2 * own)
        assert near == (expected[~far].max() if expected[~far].max() > 4 * noise else 0.0)


def test_a_single_wanted_value_needs_no_probe_for_copies():
    """If one eigenvalue is wanted, no probe for copies is made, and the result still counts as
    probed.
    """
    op = Prescribed(np.linspace(-1.0, 3.0, 300), rng=0)
    one = fc.eigsh(op, 1, "LA", rng=0)
    plain = fc.eigsh(op, 1, "LA", rng=0, probe=False)
    assert one.probed and one.n_products == plain.n_products
    assert np.array_equal(one.vectors, plain.vectors)


@pytest.mark.parametrize("n", [3, 9000])
def test_norms_whose_squares_overflow_give_no_warning(n, dtype):
    """Norms of vectors whose squares overflow give no warning, unlike NumPy's dot on some
    processors.
    """
    huge = np.full(n, np.sqrt(np.finfo(dtype).max) * 2, dtype)
    lost = np.r_[np.full(n - 2, np.nan), huge[:2]].astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert norm(huge) == pytest.approx(float(huge[0]) * n**0.5, rel=1e-6)
        assert np.isnan(norm(lost)) and np.isnan(dot(lost, huge))
        assert np.isinf(dot(huge, huge)) or dtype == "float32"  # summed in float64


@pytest.mark.parametrize("which", ["LM", "LA", "SA", "BE"])
def test_a_probe_for_copies_compares_its_ritz_values_with_the_earlier_ones(which, monkeypatch):
    """A check of a probe for missed copies returns PROBE_ENDED only if its Ritz values equal the
    earlier ones within the tolerance, and COPIES_FOUND only if they differ.
    """
    ends = []
    check_probe = ThickRestartSearch.check_probe

    def compared(self):
        outcome, run = check_probe(self), self.run
        values = run.ritz_pairs(self.k, which)[0]
        ends.append((outcome, np.abs(values - self.probed_pairs[0]).max() / (self.tol * run.scale)))
        return outcome

    monkeypatch.setattr(ThickRestartSearch, "check_probe", compared)
    for name in ("uniform", "geometric", "hessian", "double", "two values", "under", "cluster"):
        for seed in range(2):
            op = Prescribed(SPECTRA[name](np.random.default_rng(seed)), rng=seed)
            fc.eigsh(op, 6, which, tol=1e-4, rng=seed)
            fc.eigsh(op, 6, which, tol=1e-7, rng=seed, max_basis=40)
    assert {outcome for outcome, _ in ends} == {*Outcome}
    assert all(off <= 1.01 for outcome, off in ends if outcome is Outcome.PROBE_ENDED)
    assert all(off > 0.5 for outcome, off in ends if outcome is Outcome.COPIES_FOUND)
