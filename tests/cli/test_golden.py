"""The commands' output, compared with the golden file; `tests.golden` updates it."""

import pytest

pytest.importorskip("sklearn")

from ..golden import changed  # noqa: E402
from . import golden  # noqa: E402


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_output_of_every_command_is_unchanged(section):
    """The words of each command's output equal the golden ones, and its numbers agree as far as the
    kernel tables do.
    """
    assert changed(golden, section) == []
