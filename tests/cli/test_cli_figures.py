"""Every command prints what it printed, word by word; `figures` says how it is written anew."""

import pytest

pytest.importorskip("sklearn")

from ..agreement import changed, known  # noqa: E402
from .figures import figures  # noqa: E402

KNOWN = known("cli")


def test_every_command_prints_what_it_printed():
    """Numbers where the tables of kernels agree, to what rounding leaves."""
    assert changed(KNOWN, figures(), "cli") == []
