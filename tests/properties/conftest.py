"""What the drawn networks leave behind."""

import pytest

from ..plans import laid_out


@pytest.fixture(autouse=True)
def layouts_as_is_best():
    """After a test plans are laid out as is best, whatever its last network asked for."""
    with laid_out():
        yield
