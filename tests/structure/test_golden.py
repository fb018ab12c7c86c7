"""Symmetries and saturation stay what they are; `tests.golden` says how they are written anew."""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_symmetries_and_saturation_are_what_they_were(section):
    """At points with units that read nothing, say nothing or are the same."""
    assert changed(golden, section) == []
