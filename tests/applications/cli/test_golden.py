"""The output of each command equals that in the golden file, which `python -m tests.golden`
updates.
"""

import pytest

pytest.importorskip("sklearn")

from ...golden import changed  # noqa: E402
from . import golden  # noqa: E402


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_output_of_every_command_is_unchanged(section):
    """The words and the status of each command equal those in the golden file, and the numbers
    agree up to differences between kernel tables.
    """
    assert changed(golden, section) == []
