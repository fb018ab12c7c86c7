"""Every method takes the steps that it took: the other tests show that runs arrive, and few would
notice one that takes another way there. `tests.golden` says how they are written anew.
"""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_methods_take_the_steps_that_they_took(section):
    """Counts, and where a run came to, where the tables of kernels agree."""
    assert changed(golden, section) == []
