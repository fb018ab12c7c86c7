"""Ctrl-C ends applications promptly."""

import pytest

from ...reliability.test_ctrl_c import ALGORITHMS, check_prompt_ends

CALLS = {
    "sample_critical_points": "fc.sample_critical_points(small, 50, rng=0)",
}


@pytest.mark.nightly
def test_ctrl_c_ends_calls_promptly(clock, python):
    check_prompt_ends(ALGORITHMS, CALLS, 5, clock, python, returns=True)
