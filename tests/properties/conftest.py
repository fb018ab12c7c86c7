"""A fixture that restores the default layout of plans after each property test."""

import pytest

from ..plans import laid_out


@pytest.fixture(autouse=True)
def default_layouts():
    """Restore the default layout of plans after a test that sets another one."""
    with laid_out():
        yield
