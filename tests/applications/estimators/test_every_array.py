"""Array arguments of estimators: masked and foreign arrays are used as they are, or rejected with a
short error.
"""

import pytest

import fastcurv as fc

from ...reliability.test_every_array import LABELS, WEIGHT, X, check_foreign, check_masked


def fitted(X, y, sample_weight):
    return fc.MLPClassifier((3,), max_iter=2, random_state=0).fit(X, y, sample_weight).theta_


def predicted(X):
    fit = fc.MLPClassifier((3,), max_iter=5, random_state=0).fit(X, LABELS)
    return fit.predict_proba(X)


CALLS = [(fitted, [X, LABELS, WEIGHT], 0), (fitted, [X, LABELS, WEIGHT], 1)]
CALLS += [(fitted, [X, LABELS, WEIGHT], 2), (predicted, [X], 0)]


@pytest.mark.parametrize("call, given, at", CALLS)
def test_arrays_of_other_kinds_are_accepted_as_arrays(call, given, at):
    check_masked(call, given, at)
    check_foreign(call, given, at)
