"""Claims about probability hold as often as promised, by exact binomial tests: some claims by day,
all in `make nightly`.
"""

import pytest
from scipy.stats import binom

from .frequencies import SPARSE, SPECTRA, claims

ALARM = 1e-6  # the probability of a false alarm for each claim


def test_claims_on_sampled_cases_hold_at_their_stated_rate():
    """For few probes and for spectra dominated by one or a few eigenvalues, each claim holds in 20
    runs as often as a binomial test of the promised probability requires.
    """
    few = claims((6, 12))
    told = {"dominant", "copies", "triangle", "pair and noise"}
    left = {*SPECTRA, *SPARSE} - told
    chosen = [c for c in few if not any(c[0].endswith(f" {kind}") for kind in left)]
    for name, (claim, arguments) in chosen:
        held, promised = claim(*arguments, 20)
        assert held >= binom.ppf(ALARM, 20, promised), f"{name}: {held} of 20"


@pytest.mark.nightly
@pytest.mark.parametrize("claim", claims((6, 10, 12, 20, 60)), ids=lambda c: c[0])
def test_all_claims_hold_at_their_stated_rate(claim):
    """Every claim holds in 400 runs as often as a binomial test of the promised probability
    requires, which distinguishes a coverage of 0.95 from 0.91.
    """
    function, arguments = claim[1]
    held, promised = function(*arguments, 400)
    assert held >= binom.ppf(ALARM, 400, promised), f"{claim[0]}: {held} of 400"
