"""Products, grids, densities and errors for prescribed spectra equal those in the golden file,
which detects higher costs and larger errors. `tests.golden` updates the file.
"""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_costs_and_errors_of_spectra_are_unchanged(section):
    """Counts equal those in the golden file, and numbers that depend on residuals or few probes
    agree up to rounding.
    """
    assert changed(golden, section) == []
