"""Samples and runs by SciPy equal those in the golden file, which `python -m tests.golden`
updates.
"""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_samples_and_runs_are_unchanged(section):
    assert changed(golden, section) == []
