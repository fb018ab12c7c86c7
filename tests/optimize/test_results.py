"""Results of optimisers: their attributes, errors for other names, and HTML."""

import copy
import pickle

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
        "starts": fc.minimize(p.ob, n_init=2, max_iter=3, rng=0),
        "point": fc.find_critical_point(p.ob, p.theta, max_iter=2),
        "escape": fc.escape(p.ob, p.theta, rng=0),
    }
    return p, found


def test_results_are_optimize_results_and_survive_copy_and_pickle(results):
    for result in results[1].values():
        assert isinstance(result, OptimizeResult)
        for other in (pickle.loads(pickle.dumps(result)), copy.copy(result), copy.deepcopy(result)):
            assert type(other) is type(result) and other.keys() == result.keys()
            assert other.fun == result.fun and np.array_equal(other.x, result.x)
        assert set(type(result).__annotations__) - {"starts"} <= result.keys()


def test_every_entry_of_a_result_is_an_attribute(results):
    for result in results[1].values():
        for name in result:
            assert getattr(result, name) is result[name]
        for name in ("zzz", "__array__", "_private"):
            assert not hasattr(result, name)
