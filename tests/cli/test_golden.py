"""Every command prints what it printed, word by word; `tests.golden` writes it anew."""

import pytest

pytest.importorskip("sklearn")

from ..golden import changed  # noqa: E402
from . import golden  # noqa: E402


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_every_command_prints_what_it_printed(section):
    """Numbers where the tables of kernels agree, to what rounding leaves."""
    assert changed(golden, section) == []
