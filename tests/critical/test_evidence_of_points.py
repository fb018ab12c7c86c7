"""Verdicts whose evidence is partly unknown, and what verdicts do not claim."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.critical.report import evidence_rows
from fastcurv.testing import QuadraticObjective

BOWL = QuadraticObjective(np.diag([1.0, 2.0, 3.0]))


@pytest.fixture(scope="module")
def point():
    return fc.classify(BOWL, np.zeros(3), rng=0)


def test_to_dict_has_plain_values_only(point):
    """The result of `to_dict` contains only numbers, strings, bools, lists, dicts and None."""
    odd = replace(
        point, failure_probability=np.nan, lambda_max=np.float32(np.inf),
        escape_curvature=None, certified=np.bool_(True), nearest_verdict=point,
        nearest_point=np.array([1.0, np.nan, -2.0]),
    )  # fmt: skip
    facts = odd.to_dict()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert set(facts) == {f.name for f in fields(odd)} - {"_numbers", "_clauses", "_audience"} | {
        "index", "minimum_ratio", "reason", "advice",
    }  # fmt: skip
    assert facts["certified"] is True and facts["evidence"]["n_kinks"] == 0
    assert facts["failure_probability"] is facts["lambda_max"] is facts["escape_curvature"] is None
    assert (
        facts["nearest_point"] == [1.0, None, -2.0] and facts["nearest_verdict"] == point.to_dict()
    )


def test_evidence_is_given_if_the_inertia_is_unknown(point):
    odd = replace(
        point, certified=False, failure_probability=1e-3, n_negative=None, n_positive=None,
        nearest_verdict=point,
        evidence=replace(
            point.evidence, n_kinks=4, n_negative_bounds=(1, 3), nearest_distance=0.25
        ),
    )  # fmt: skip
    assert {"kinks", "nearest"} <= {name for name, _ in evidence_rows(odd)}
    assert odd.index is None and odd.minimum_ratio is None
    assert point.index == 0 and point.minimum_ratio == 1


def test_the_proof_of_a_saddle_by_two_vectors_claims_no_critical_point():
    """If two vectors prove a saddle, the evidence excludes minima and maxima. If the theorem proves
    a critical point, the evidence gives its distance.
    """
    bowl = QuadraticObjective(np.diag([-1.0, *np.linspace(1, 2, 60)]))
    everywhere = fc.classify(bowl, np.zeros(61), dense_below=0, rng=0)
    assert dict(evidence_rows(everywhere))["proof"] == "no minimum or maximum at any point"
    nearby = replace(everywhere, radius=1e-3)
    assert dict(evidence_rows(nearby))["proof"] == "no minimum or maximum within 0.001 of theta"
    exact = fc.classify(bowl, np.zeros(61), rng=0)
    assert exact.certified and dict(evidence_rows(exact))["proof"] == "at theta, h = 0"


def test_kink_minima_with_copied_units_claim_no_strict_minimum():
    """At a minimum with active relu kinks, also with a unit split into two, the sentence claims
    only a local minimum nearby.
    """
    rng = np.random.default_rng(0)
    X = rng.standard_normal((32, 3))
    y = np.maximum(X @ rng.standard_normal((3, 1)), 0) + 0.1 * rng.standard_normal((32, 1))
    ob = fc.Objective(fc.MLP([3, 3, 1], "relu"), X, y, "mse", l2=0.1)
    small = fc.minimize(ob, ob.model.init(rng=0), rng=0)
    assert small.report.certified and small.report.evidence.n_active_kinks
    (W, b), (V, c) = ob.model.unflatten(small.x.copy())
    i = int(np.argmax(np.linalg.norm(W, axis=1)))
    split = np.diag(np.where(np.arange(3) == i, 0.8, 1.0))
    split = np.vstack([split, 0.6 * (np.arange(3) == i)])
    wide = fc.Objective(fc.MLP([3, 4, 1], "relu"), X, y, "mse", l2=0.1)
    theta = wide.model.flatten([(split @ W, split @ b), (V @ split.T, c)])
    copied = fc.classify(wide, theta)
    assert copied.certified and copied.rule == "kink_minimum"
    assert not copied._clauses["strict"]
