"""The verdict is a function of what was found: a table of findings and outcomes."""

import dataclasses
import itertools
import math

import pytest

from fastcurv.critical.decide import Findings, decide

MIN = {"n_positive": 3, "n_negative": 0, "n_zero": 0, "n_symmetry": 0, "positive": True}
MAX = {"n_positive": 0, "n_negative": 3, "n_zero": 0, "n_symmetry": 0, "negative": True}
SADDLE = {**MIN, "n_negative": 1, "n_positive": 2, "negative": True}
ORBIT = {**MIN, "n_positive": 2, "n_zero": 1, "n_symmetry": 1}
ZEROS = {**MIN, "n_positive": 2, "n_zero": 1}
PROOF = {"theorem": True, "radius": 1e-9}
LARGE = {"negative": False, "positive": True}
ASKED = {"risk": 1e-3, "risk_asked": 1e-2}

TABLE = [
    # what lies elsewhere comes first, whatever is proved besides
    ({**MIN, **PROOF, "near": False}, "not_critical", False, "far"),
    ({**MIN, "near": False, "plateau": True}, "not_critical", False, "plateau"),
    ({**MIN, **PROOF, "to_infinity": True}, "not_critical", False, "infinity"),
    ({**LARGE, **ASKED, "to_infinity": True}, "not_critical", False, "infinity"),
    # the theorem
    ({**MIN, **PROOF}, "minimum", True, "theorem"),
    ({**MAX, **PROOF}, "maximum", True, "theorem"),
    ({**SADDLE, **PROOF}, "saddle", True, "theorem"),
    ({**ORBIT, **PROOF}, "minimum", True, "theorem"),
    ({**ZEROS, **PROOF}, "degenerate", False, "zeros"),
    ({**MIN, **PROOF, "strict": False}, "minimum", False, "measured"),
    ({**MIN, **PROOF, "n_kinks": 2}, "minimum", True, "theorem"),
    # without it
    (MIN, "minimum", False, "measured"),
    (MAX, "maximum", False, "measured"),
    (SADDLE, "saddle", False, "measured"),
    (ORBIT, "minimum", False, "measured"),
    (ZEROS, "degenerate", False, "zeros"),
    ({**ZEROS, "lasting": False}, "degenerate", False, "not lasting"),
    ({**MIN, "n_positive": 0, "n_zero": 3}, "degenerate", False, "zeros"),
    ({**MIN, "n_positive": 0, "n_zero": 3, "flat": True}, "degenerate", False, "flat"),
    # an error without a bound is no tolerance
    ({**MIN, "n_positive": 0, "n_zero": 3, "bounded": False}, "undecided", False, "no bound"),
    ({**SADDLE, "bounded": False}, "undecided", False, "no bound"),
    # what only asymmetry makes zero is not seen to be
    ({**ZEROS, "asymmetric": True}, "undecided", False, "asymmetric"),
    ({**MIN, "n_positive": 0, "n_zero": 3, "asymmetric": True}, "undecided", False, "asymmetric"),
    ({**SADDLE, "asymmetric": True}, "saddle", False, "measured"),
    # residuals that vanish
    ({**ZEROS, "interpolates": True, "zero_radius": 1e-8}, "minimum", True, "interpolation"),
    ({**ZEROS, "interpolates": True, "near": False}, "not_critical", False, "far"),
    # two fixed vectors
    ({**SADDLE, "two_signs": 1e-3, "distance": 1e-4}, "saddle", True, "two signs"),
    ({**SADDLE, "two_signs": 1e-4, "distance": 1e-3}, "saddle", False, "measured"),
    ({**SADDLE, "two_signs": 1e-4}, "saddle", False, "measured"),
    ({**ZEROS, "two_signs": 1.0, "distance": 0.0}, "degenerate", False, "zeros"),
    (
        {"negative": True, "positive": True, "two_signs": 1.0, "distance": 0.0},
        "saddle",
        True,
        "two signs",
    ),
    ({"negative": True, "positive": True}, "saddle", False, "measured"),
    ({"negative": True, "positive": True, "lasting": False}, "undecided", False, "not lasting"),
    # no smaller gradient at the end of Newton's step
    ({**MIN, "arrives": False}, "undecided", False, "no rest"),
    ({**SADDLE, "arrives": False}, "saddle", False, "measured"),
    ({**ZEROS, "arrives": False}, "degenerate", False, "zeros"),
    ({**MIN, **PROOF, "arrives": False}, "minimum", True, "theorem"),
    ({**LARGE, **ASKED, "arrives": False}, "undecided", False, "no rest"),
    # kinks
    ({**MIN, "n_kinks": 1}, "undecided", False, "kinks"),
    ({**MAX, "n_kinks": 1}, "undecided", False, "kinks"),
    ({**SADDLE, "n_kinks": 1}, "undecided", False, "kinks"),
    ({**SADDLE, "n_kinks": 1, "falls": True}, "saddle", False, "kinks"),
    ({**LARGE, **ASKED, "n_kinks": 1}, "undecided", False, "kinks"),
    # large n
    ({**LARGE, **PROOF, "floor": 0.1}, "minimum", True, "floor"),
    ({**LARGE, "floor": 0.1}, "undecided", False, "floor"),
    ({**LARGE, **PROOF}, "undecided", False, "no risk asked"),
    ({**LARGE, **ASKED}, "minimum", False, "risk"),
    ({"negative": True, **ASKED}, "maximum", False, "risk"),
    ({**LARGE, **ASKED, "lasting": False}, "undecided", False, "not lasting"),
    ({**LARGE, **ASKED, "loose": True}, "degenerate", False, "loose"),
    ({**LARGE, "risk": 0.1, "risk_asked": 0.01}, "undecided", False, "risk too large"),
    ({**LARGE, "risk": math.nan, "risk_asked": 0.01}, "undecided", False, "risk too large"),
    (ASKED, "undecided", False, "nothing"),
    ({**ASKED, "flat": True}, "degenerate", False, "flat"),
]


@pytest.mark.parametrize("facts, kind, certified, because", TABLE)
def test_the_table(facts, kind, certified, because):
    said = decide(Findings(**facts))
    assert (said.kind, said.certified, said.because) == (kind, certified, because)


FLAGS = {
    "near": (True, False),
    "strict": (True, False),
    "to_infinity": (False, True),
    "negative": (False, True),
    "positive": (False, True),
    "lasting": (True, False),
    "arrives": (True, False),
    "theorem": (False, True),
    "interpolates": (False, True),
    "two_signs": (0.0, 1e-3, math.nan),
    "distance": (0.0, math.inf, math.nan),
    "floor": (-math.inf, 0.1),
    "risk_asked": (None, 0.01),
    "n_kinks": (0, 1),
}


@pytest.mark.parametrize("inertia", [None, (3, 0, 0, 0), (2, 0, 1, 0), (1, 1, 1, 1), (0, 0, 3, 0)])
def test_whatever_is_found_nothing_is_said_beyond_it(inertia):
    """All combinations of findings: what a certificate needs, and what the risk is for."""
    counts = ("n_positive", "n_negative", "n_zero", "n_symmetry")
    base = {} if inertia is None else dict(zip(counts, inertia))
    seen = set()
    for values in itertools.product(*FLAGS.values()):
        found = Findings(**base, **dict(zip(FLAGS, values)), risk=1e-3)
        said = decide(found)
        seen.add(said.because)
        assert (said.radius is not None) == said.certified
        assert (said.failure_probability == 0) == said.certified
        if not found.near or found.to_infinity:
            assert said.kind == "not_critical" and not said.certified
            continue
        assert said.kind != "not_critical"
        if said.certified:
            assert found.strict
            assert found.theorem or found.interpolates or found.two_signs > found.distance
        if said.failure_probability > 0:
            assert found.risk <= found.risk_asked and not found.dense and found.lasting
        if said.kind in ("minimum", "maximum") and not said.certified:
            assert found.arrives
        if said.kind == "minimum" and said.because != "interpolation":
            assert not found.n_negative and found.unexplained == 0
            assert found.dense or not found.negative
    assert len(seen) >= 6


def test_findings_and_outcomes_are_frozen():
    for one in (Findings(), decide(Findings())):
        with pytest.raises(dataclasses.FrozenInstanceError):
            one.kind = "minimum"
