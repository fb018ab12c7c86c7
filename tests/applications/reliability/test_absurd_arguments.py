"""Malformed histories of runs raise short errors."""

import warnings

import fastcurv as fc

from ... import nets
from ...reliability.test_absurd_arguments import ABSURD, describe_fault


def test_diagnose_rejects_malformed_histories():
    net = nets.draw(0, [3, 3, 2], loss="cross_entropy", N=12)
    keys = ("loss", "learning_rate", "momentum")
    wrong = []
    for key in keys:
        for value in (*ABSURD[::2], [10**400], ["a"], [None], [[1.0], [2, 3]], {"a": 1}):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    fc.diagnose(net.ob, net.theta, {"loss": [3.0, 2.0], key: value})
            except Exception as error:
                if describe_fault(error):
                    wrong.append((key, ascii(value)[:40], describe_fault(error), ascii(error)[:90]))
    assert wrong == []
