"""Samples, runs by SciPy and fits equal those in the golden files, which
`python -m tests.golden` updates, up to differences between kernel tables.
"""

import pytest

pytest.importorskip("sklearn")

from ..golden import changed  # noqa: E402
from . import golden  # noqa: E402
from .estimators import golden as golden_of_fits  # noqa: E402

MODULES = (golden, golden_of_fits)


@pytest.mark.parametrize(
    "module, section", [(module, section) for module in MODULES for section in module.SECTIONS]
)
def test_results_are_those_of_the_golden_file(module, section):
    assert changed(module, section) == []
