"""Defaults are a contract: scripts that name none go on doing what they did."""

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from ..golden import known  # noqa: E402
from . import golden  # noqa: E402


def test_every_default_is_what_it_was():
    """What is new may come without; `tests.golden` says how they are written anew."""
    held, found = known("reliability")["defaults"], golden.golden("defaults")
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
