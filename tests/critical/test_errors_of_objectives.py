"""Errors raised by a user's objective reach the user from every call."""

import numpy as np
import pytest

import fastcurv as fc

STARTS = {"near": [1e-6, 0.0, 0.0], "far": [1.0, -1.0, 0.5]}


class Raising:
    """A quartic bowl whose method `name` raises an error in its `at`-th call."""

    n_params = 3

    def __init__(self, name=None, at=0, error=None):
        self.name, self.at, self.error = name, at, error or ValueError("mine")
        self.calls = dict.fromkeys(("value", "gradient", "hessian"), 0)

    def _count(self, name):
        self.calls[name] += 1
        if name == self.name and self.calls[name] == self.at:
            raise self.error

    def value(self, x):
        self._count("value")
        return 0.5 * x @ x + np.sum(x**4)

    def gradient(self, x):
        self._count("gradient")
        return x + 4 * x**3

    def hessian(self, x):
        self._count("hessian")
        return np.diag(1 + 12 * x**2)


CALLS = {
    "classify": lambda ob, x: fc.classify(ob, x, rng=0),
    "find": lambda ob, x: fc.find_critical_point(ob, x),
    "minimize": lambda ob, x: fc.minimize(ob, x, rng=0, max_iter=20),
    "by products": lambda ob, x: fc.classify(ob, x, rng=0, dense_below=0),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_value_error_of_an_objective_reaches_its_user(call):
    """A ValueError of each method of an objective reaches the user, whether the first call, the
    last call or one between them raises it.
    """
    raised = 0
    for start in STARTS.values():
        counted = Raising()
        CALLS[call](counted, np.array(start))
        for name, n in counted.calls.items():
            for at in sorted({1, 2, n // 2, n - 1, n} & set(range(1, n + 1))):
                with pytest.raises(ValueError, match="^mine$"):
                    CALLS[call](Raising(name, at), np.array(start))
                raised += 1
    assert raised >= 6


def test_a_search_ends_with_a_message_if_the_hessian_is_nan():
    """If the Hessian is NaN, `find_critical_point` ends with a note. Errors other than
    ValueError that the objective raises are not caught.
    """

    class Lost(Raising):
        def hessian(self, x):
            return np.full((3, 3), np.nan)

    found = fc.find_critical_point(Lost(), np.ones(3))
    assert not found.success and found.notes[0].key == "hessian_not_finite"
    with pytest.raises(RuntimeError, match="^mine$"):
        fc.find_critical_point(Raising("hessian", 1, RuntimeError("mine")), np.ones(3))
