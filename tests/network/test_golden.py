"""Products, bounds and maps of every form of a curvature stay what they are; `tests.golden` says
how they are written anew.
"""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_forms_give_and_claim_what_they_did(section):
    """Bounds to what rounding does in sums of NumPy; the rest to single precision."""
    assert changed(golden, section) == []
