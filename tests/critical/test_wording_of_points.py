"""What a verdict looks like where parts of it are unknown."""

import itertools
import json
from dataclasses import fields, replace

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.testing import QuadraticObjective

BOWL = QuadraticObjective(np.diag([1.0, 2.0, 3.0]))


@pytest.fixture(scope="module")
def point():
    return fc.classify(BOWL, np.zeros(3), seed=0)


@pytest.mark.parametrize("seed", [0, np.int64(3), np.random.default_rng(0)])
def test_all_of_it_is_plain(point, seed):
    """Numbers, words, lists and None, by the names and with the numbers of the shell's JSON."""
    from fastcurv.cli.output import verdict_facts
    from fastcurv.spectrum.results import as_json

    odd = replace(
        point, seed=seed, failure_probability=np.nan, lambda_max=np.float32(np.inf), rest=None,
        certified=np.bool_(True), nearest=np.array([1.0, np.nan, -2.0]), at_nearest=point,
    )  # fmt: skip
    facts = odd.to_dict()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert set(facts) == {f.name for f in fields(odd)} - {"_advice"} | {"index", "minimum_ratio"}
    assert facts["certified"] is True and facts["lambda_min_bounds"] == list(odd.lambda_min_bounds)
    assert facts["failure_probability"] is facts["lambda_max"] is facts["rest"] is None
    assert facts["nearest"] == [1.0, None, -2.0] and facts["at_nearest"] == point.to_dict()
    shell = as_json(verdict_facts(odd))
    assert {name: facts[name] for name in shell} == shell


def test_what_is_known_is_shown(point):
    text = repr(point)
    assert "certified" in text and "3 positive, 0 negative" in text and "kinks" not in text
    assert point.index == 0 and point.minimum_ratio == 1 and point.summary() == text


def test_risks_kinks_and_bounds_are_shown(point):
    odd = replace(
        point, certified=False, failure_probability=1e-3, n_kinks=4, n_negative=None,
        n_positive=None, n_negative_bounds=(1, 3), at_nearest=point, distance=0.25,
    )  # fmt: skip
    text, page = repr(odd), odd._repr_html_()
    assert "wrong with probability at most 0.001" in text
    assert "between 1 and 3 of 3 eigenvalues negative" in text
    assert "4 pre-activations within rounding" in text
    assert "nearest     a certified minimum at a distance of 0.25" in text
    assert odd.index is None and odd.minimum_ratio is None
    for words in ("between 1 and 3", "4 pre-activations", "0.25"):
        assert words in page
    doubted = replace(odd, at_nearest=replace(point, certified=False))
    assert "nearest     a minimum at" in repr(doubted)


def test_a_first_reader_is_told_in_a_sentence():
    """Kind, how sure, what to do next: at most 25 words, whatever is known."""
    point = fc.classify(fc.testing.lecture_toy(), np.zeros(2), seed=0)
    assert point.sentence == (
        "A saddle, proved: the loss falls on some sides and rises on others; "
        "fastcurv.escape(ob, theta) takes a way down."
    )
    kinds = ("minimum", "maximum", "saddle", "degenerate", "not_critical", "undecided")
    for kind, certified, risk, zeros, plateau in itertools.product(
        kinds, (True, False), (0.0, 0.004, np.nan), (None, 0, 12), (False, True)
    ):
        other = replace(
            point, kind=kind, certified=certified, failure_probability=risk, n_zero=zeros,
            n_symmetry=zeros, plateau=plateau,
        )  # fmt: skip
        for told in (other, other._of_fit()):
            assert len(told.sentence.split()) <= 25 and told.sentence.endswith(".")
        assert "ob, theta" not in told.sentence
        assert kind.replace("_", " ").split()[0] in other.sentence.lower() or kind == "not_critical"
        assert repr(other).splitlines()[1].strip() == other.sentence
