"""Products, bounds and embeddings compared with the golden file; `tests.golden` updates it."""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_products_and_bounds_match_golden_values(section):
    """Products equal the golden ones to single precision, and bounds to rounding of NumPy's
    sums.
    """
    assert changed(golden, section) == []
