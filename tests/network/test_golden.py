"""Products and bounds equal those in the golden file, which `python -m tests.golden`
updates.
"""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_streams_and_initial_weights_match_golden_values(section):
    """The values of each section equal those in the golden file: values to single precision, and
    bounds up to the rounding of NumPy's sums.
    """
    assert changed(golden, section) == []
