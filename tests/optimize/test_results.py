"""Results of optimisers: their attributes, errors for other names, and HTML."""

import copy
import pickle
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.optimize import OptimizeResult

import fastcurv as fc

from .. import nets


@pytest.fixture(scope="module")
def results():
    """Return (problem, results): a network, and a dict with a result of each function that returns
    an `OptimizeResult`.
    """
    p = nets.draw(0, [4, 5, 3], loss="cross_entropy", N=30, l2=1e-2)
    found = {
        "minimum": fc.minimize(p.ob, p.theta),
        "cut short": fc.minimize(p.ob, p.theta, max_iter=1),
        "of no verdict": fc.minimize(p.ob, p.theta, verdict=False, max_iter=2),
        "starts": fc.minimize(p.ob, n_init=2, max_iter=3, seed=0),
        "point": fc.find_critical_point(p.ob, p.theta, max_iter=2),
        "escape": fc.escape(p.ob, p.theta, seed=0),
    }
    return p, found


def test_results_are_optimize_results_and_survive_copy_and_pickle(results):
    for result in results[1].values():
        assert isinstance(result, OptimizeResult)
        for other in (pickle.loads(pickle.dumps(result)), copy.copy(result), copy.deepcopy(result)):
            assert type(other) is type(result) and other.keys() == result.keys()
            assert other.fun == result.fun and np.array_equal(other.x, result.x)
        assert set(type(result).__annotations__) - {"starts", "track"} <= result.keys()


def test_every_entry_of_a_result_is_an_attribute(results):
    for result in results[1].values():
        for name in result:
            assert getattr(result, name) is result[name]
        for name in ("zzz", "__array__", "_private"):
            assert not hasattr(result, name)


def text_of(page):
    return " ".join(ElementTree.fromstring(page).itertext())


def test_html_of_runs_objectives_and_models_contains_their_repr(results):
    p, found = results
    for result in found.values():
        page = text_of(result._repr_html_())
        assert result.message in page and f"{result.fun:.9g}" in page
    assert "4 -> 5" in text_of(p.model._repr_html_())
    rows = text_of(p.model._repr_html_())
    assert f"MLP with {p.model.n_params} parameters" in rows and "tanh" in rows
    for said in (repr(p.model), "cross_entropy", "0.01", str(p.ob.n_samples)):
        assert said in text_of(p.ob._repr_html_())


def test_the_kind_of_a_verdict_is_the_heading_of_its_html(results):
    """The HTML of a verdict has its kind as the heading, followed by its sentence and reason. A run
    has the heading of its verdict.
    """
    run = results[1]["minimum"]
    for shown in (run, run.report):
        page = ElementTree.fromstring(shown._repr_html_())
        assert page.find("h4").text == "minimum, certified"
    texts = [paragraph.text for paragraph in page.iter("p")]
    assert texts == [run.report.sentence, run.report.reason]
    cut = ElementTree.fromstring(results[1]["cut short"]._repr_html_())
    assert cut.find("h4").text == "no success, no verdict"
