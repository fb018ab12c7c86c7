"""Products, grids, densities and errors of known spectra compared with the golden file, which
notices higher costs or larger errors. `tests.golden` updates it.
"""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_costs_and_errors_of_spectra_are_unchanged(section):
    """Counts equal the golden ones, and numbers that depend on residuals or few probes agree up to
    rounding.
    """
    assert changed(golden, section) == []
