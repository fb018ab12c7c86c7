"""Defaults are a contract: scripts that name none go on doing what they did."""

import json
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from .defaults import shell, surface  # noqa: E402

KNOWN = json.loads(Path(__file__).with_name("defaults.json").read_text())


def test_every_default_is_what_it_was():
    """See `defaults` for how to write them anew."""
    found = surface() | shell()
    changed = {
        f"{name}({word}): {KNOWN[name][word]} was, {now} is"
        for name, words in found.items()
        for word, now in words.items()
        if word in KNOWN.get(name, {}) and KNOWN[name][word] != now
    }
    gone = {
        f"{name}({word})"
        for name, words in KNOWN.items()
        for word in words
        if word not in found.get(name, {})
    }
    assert not changed and not gone
