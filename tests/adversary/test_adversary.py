"""A sample of the adversary in every run; `make adversary` tries a hundred thousand cases."""

import pytest

from .statements import STATEMENTS, run


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: s.__name__)
def test_is_never_said(statement):
    """Each statement holds on fifteen cases, and they do not all end alike where they can end
    otherwise.
    """
    for seed in range(15):
        run(statement, seed)
