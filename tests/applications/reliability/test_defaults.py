"""Default arguments are part of the public interface: a script that relies on them must not change
its behaviour.
"""

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from ...golden import known  # noqa: E402
from . import golden  # noqa: E402


def test_public_defaults_are_unchanged():
    """Every recorded default is unchanged. New functions need no record; `tests.golden` describes
    how defaults are recorded.
    """
    held, found = known("applications.reliability")["defaults"], golden.golden("defaults")
    changed = {
        f"{name}({word}): {held[name][word]} was, {now} is"
        for name, words in found.items()
        for word, now in words.items()
        if word in held.get(name, {}) and held[name][word] != now
    }
    gone = {
        f"{name}({word})"
        for name, words in held.items()
        for word in words
        if word not in found.get(name, {})
    }
    assert not changed and not gone
