"""The verdict is a function of the evidence, tested by a table of evidence and verdicts."""

import dataclasses
import itertools
import math

import pytest

from fastcurv.critical.decide import (
    UNTRIED_OUTCOME,
    CriticalPointProof,
    Evidence,
    Nearness,
    Reason,
    SpectrumEvidence,
    TwoSignProof,
    decide,
)
from fastcurv.critical.theorem import KantorovichOutcome

PARTS = {"nearness": Nearness, "spectrum": SpectrumEvidence, "proof": CriticalPointProof}


def evidence(**facts):
    """Return `Evidence` with the given values, each assigned to the part of the evidence that has
    an attribute of that name.
    """
    own = {f.name: {g.name for g in dataclasses.fields(part)} for f, part in parts()}
    split = {name: {k: facts.pop(k) for k in own[name] & set(facts)} for name in own}
    return Evidence(**{name: PARTS[name](**given) for name, given in split.items()}, **facts)


def parts():
    return [(f, PARTS[f.name]) for f in dataclasses.fields(Evidence) if f.name in PARTS]


def proved_ball(radius):
    return KantorovichOutcome(True, radius, 0.1, 1.0, radius, 1.0)


MIN = {"n_positive": 3, "n_negative": 0, "n_zero": 0, "n_symmetry": 0, "positive": True}
MAX = {"n_positive": 0, "n_negative": 3, "n_zero": 0, "n_symmetry": 0, "negative": True}
SADDLE = {**MIN, "n_negative": 1, "n_positive": 2, "negative": True}
ORBIT = {**MIN, "n_positive": 2, "n_zero": 1, "n_symmetry": 1}
ZEROS = {**MIN, "n_positive": 2, "n_zero": 1}
PROOF = {"theorem": proved_ball(1e-9)}
LARGE = {"negative": False, "positive": True}
ASKED = {"risk": 1e-3, "accepted_risk": 1e-2}

TABLE = [
    # Points that are not critical are rejected first, whatever else is proved.
    ({**MIN, **PROOF, "near": False}, "not_critical", False, "gradient above tol"),
    ({**MIN, "near": False, "residual": 1.0}, "not_critical", False, "on plateau"),
    ({**MIN, **PROOF, "infimum_at_infinity": True}, "not_critical", False, "infimum at infinity"),
    ({**LARGE, **ASKED, "infimum_at_infinity": True}, "not_critical", False, "infimum at infinity"),
    # Kantorovich's theorem holds.
    ({**MIN, **PROOF}, "minimum", True, "kantorovich"),
    ({**MAX, **PROOF}, "maximum", True, "kantorovich"),
    ({**SADDLE, **PROOF}, "saddle", True, "kantorovich saddle"),
    ({**ORBIT, **PROOF}, "minimum", True, "kantorovich"),
    ({**ZEROS, **PROOF}, "degenerate", False, "zero eigenvalues"),
    ({**MIN, **PROOF, "strict": False}, "minimum", False, "measured signs"),
    ({**MIN, **PROOF, "n_kinks": 2}, "minimum", True, "kantorovich"),
    # A symmetry explains the only eigenvalue, so no eigenvalue has a sign.
    ({**ZEROS, **PROOF, "n_positive": 0, "n_symmetry": 1}, "degenerate", False, "zero eigenvalues"),
    # No theorem holds.
    (MIN, "minimum", False, "measured signs"),
    (MAX, "maximum", False, "measured signs"),
    (SADDLE, "saddle", False, "measured saddle"),
    (ORBIT, "minimum", False, "measured signs"),
    (ZEROS, "degenerate", False, "zero eigenvalues"),
    ({**ZEROS, "signs_stable": False}, "degenerate", False, "unstable signs"),
    ({**MIN, "n_positive": 0, "n_zero": 3}, "degenerate", False, "zero eigenvalues"),
    ({**MIN, "n_positive": 0, "n_zero": 3, "is_zero": True}, "degenerate", False, "zero hessian"),
    # An error without a bound cannot show that eigenvalues are 0.
    (
        {**MIN, "n_positive": 0, "n_zero": 3, "has_error_bound": False},
        "undecided",
        False,
        "no error bound",
    ),
    ({**SADDLE, "has_error_bound": False}, "undecided", False, "no error bound"),
    # An eigenvalue that is 0 only within the asymmetry is not counted as 0.
    ({**ZEROS, "asymmetric": True}, "undecided", False, "asymmetric products"),
    (
        {**MIN, "n_positive": 0, "n_zero": 3, "asymmetric": True},
        "undecided",
        False,
        "asymmetric products",
    ),
    ({**SADDLE, "asymmetric": True}, "saddle", False, "measured saddle"),
    # A zero of all residuals is proved nearby.
    ({**ZEROS, "interpolation": proved_ball(1e-8)}, "minimum", True, "interpolation"),
    (
        {**ZEROS, "interpolation": proved_ball(1e-8), "near": False},
        "not_critical",
        False,
        "gradient above tol",
    ),
    # The signs of the curvatures along two fixed vectors are proved.
    ({**SADDLE, "two_vectors": TwoSignProof(1e-3, 1e-4)}, "saddle", True, "two vector saddle"),
    ({**SADDLE, "two_vectors": TwoSignProof(1e-4, 1e-3)}, "saddle", False, "measured saddle"),
    ({**SADDLE, "two_vectors": TwoSignProof(1e-4)}, "saddle", False, "measured saddle"),
    ({**ZEROS, "two_vectors": TwoSignProof(1.0, 0.0)}, "degenerate", False, "zero eigenvalues"),
    (
        {"negative": True, "positive": True, "two_vectors": TwoSignProof(1.0, 0.0)},
        "saddle",
        True,
        "two vector saddle",
    ),
    ({"negative": True, "positive": True}, "saddle", False, "measured saddle"),
    (
        {"negative": True, "positive": True, "signs_stable": False},
        "undecided",
        False,
        "unstable curvature",
    ),
    # The gradient is not smaller at the end of Newton's step.
    ({**MIN, "gradient_decreases": False}, "undecided", False, "gradient not reduced"),
    ({**SADDLE, "gradient_decreases": False}, "saddle", False, "measured saddle"),
    ({**ZEROS, "gradient_decreases": False}, "degenerate", False, "zero eigenvalues"),
    ({**MIN, **PROOF, "gradient_decreases": False}, "minimum", True, "kantorovich"),
    ({**LARGE, **ASKED, "gradient_decreases": False}, "undecided", False, "gradient not reduced"),
    # Pre-activations lie at kinks.
    ({**MIN, "n_kinks": 1}, "undecided", False, "one sided hessian"),
    ({**MAX, "n_kinks": 1}, "undecided", False, "one sided hessian"),
    ({**SADDLE, "n_kinks": 1}, "undecided", False, "one sided hessian"),
    ({**SADDLE, "n_kinks": 1, "loss_decreases": True}, "saddle", False, "one sided saddle"),
    ({**LARGE, **ASKED, "n_kinks": 1}, "undecided", False, "one sided hessian"),
    ({"near": False, "n_kinks": 1}, "undecided", False, "maybe kink minimum"),
    (
        {"near": False, "n_kinks": 1, "loss_decreases": True},
        "not_critical",
        False,
        "gradient above tol",
    ),
    # For large n, only products are available.
    ({**LARGE, **PROOF, "curvature_floor": 0.1}, "minimum", True, "curvature floor"),
    ({**LARGE, "curvature_floor": 0.1}, "undecided", False, "curvature floor at theta"),
    ({**LARGE, **PROOF}, "undecided", False, "no accepted risk"),
    ({**LARGE, **ASKED}, "minimum", False, "within accepted risk"),
    ({"negative": True, **ASKED}, "maximum", False, "within accepted risk"),
    ({**LARGE, **ASKED, "signs_stable": False}, "undecided", False, "unstable curvature"),
    ({**LARGE, **ASKED, "has_unexplained_zero": True}, "degenerate", False, "unexplained zero"),
    ({**LARGE, "risk": 0.1, "accepted_risk": 0.01}, "undecided", False, "risk too large"),
    ({**LARGE, "risk": math.nan, "accepted_risk": 0.01}, "undecided", False, "risk too large"),
    (ASKED, "undecided", False, "below product error"),
    ({**ASKED, "is_zero": True}, "degenerate", False, "zero hessian"),
]


@pytest.mark.parametrize("facts, kind, certified, rule", TABLE)
def test_the_verdict_follows_from_the_evidence(facts, kind, certified, rule):
    said = decide(evidence(**facts))
    rule = Reason[rule.upper().replace(" ", "_")]
    assert (said.kind, said.certified, said.rule) == (kind, certified, rule)


FLAGS = {
    "near": (True, False),
    "strict": (True, False),
    "infimum_at_infinity": (False, True),
    "negative": (False, True),
    "positive": (False, True),
    "signs_stable": (True, False),
    "gradient_decreases": (True, False),
    "theorem": (UNTRIED_OUTCOME, proved_ball(1e-9)),
    "interpolation": (UNTRIED_OUTCOME, proved_ball(1e-8)),
    "two_vectors": [
        TwoSignProof(*r)
        for r in itertools.product((0.0, 1e-3, math.nan), (0.0, math.inf, math.nan))
    ],
    "curvature_floor": (-math.inf, 0.1),
    "accepted_risk": (None, 0.01),
    "n_kinks": (0, 1),
}


@pytest.mark.by_day(share=1 / 3)
@pytest.mark.parametrize("inertia", [None, (3, 0, 0, 0), (2, 0, 1, 0), (1, 1, 1, 1), (0, 0, 3, 0)])
def test_no_verdict_claims_more_than_its_evidence(inertia):
    """For all combinations of findings, certificates and risks are reported only with the evidence
    that they need.
    """
    counts = ("n_positive", "n_negative", "n_zero", "n_symmetry")
    base = {} if inertia is None else dict(zip(counts, inertia))
    seen = set()
    for values in itertools.product(*FLAGS.values()):
        if inertia and inertia[2] == inertia[3] and not dict(zip(FLAGS, values))["signs_stable"]:
            continue  # an unstable sign counts as a zero
        facts = base | dict(zip(FLAGS, values)) | {"risk": 1e-3}
        found, proved, near = SpectrumEvidence(**base), facts["theorem"], facts["near"]
        said = decide(evidence(**facts))
        seen.add(said.rule)
        assert (said.radius is not None) == said.certified
        assert (said.failure_probability == 0) == said.certified
        if (
            not near or facts["infimum_at_infinity"]
        ):  # at kinks a minimum is possible unless the infimum is at infinity
            held = facts["n_kinks"] and not facts["infimum_at_infinity"]
            assert said.kind == ("undecided" if held else "not_critical") and not said.certified
            continue
        assert said.kind != "not_critical"
        if said.certified:
            assert facts["strict"]
            assert proved.holds or facts["interpolation"].holds or facts["two_vectors"].holds
        if said.failure_probability > 0:
            assert (
                facts["accepted_risk"] >= 1e-3 and not found.has_inertia and facts["signs_stable"]
            )
        if said.kind in ("minimum", "maximum") and not said.certified:
            assert facts["gradient_decreases"]
        if said.kind == "minimum" and said.rule is not Reason.INTERPOLATION:
            assert not found.n_negative and (found.n_zero or 0) == (found.n_symmetry or 0)
            assert found.has_inertia or not facts["negative"]
    assert len(seen) >= 6


@pytest.mark.parametrize(
    "facts, name",
    [
        ({**ORBIT, "n_symmetry": 2}, "n_symmetry"),
        ({**MIN, "signs_stable": False}, "signs_stable"),
        ({**ORBIT, "signs_stable": False}, "signs_stable"),
    ],
)
def test_an_inertia_that_contradicts_its_signs_is_no_evidence(facts, name):
    with pytest.raises(ValueError, match=name):
        evidence(**facts)


def test_every_reason_has_a_different_sentence():
    """Every reason has its own sentence, because two members of the enum with equal values would be
    one member.
    """
    assert len(Reason) == len(Reason.__members__) == len({reason.value for reason in Reason})
