"""Each claim in the list of lectures is shown by an example whose heading a test asserts."""

import re
import sys
from pathlib import Path

import pytest

from ..headings.table import HEADINGS

ROOT = Path(__file__).resolve().parents[3]


def rows():
    """Return a list of (number, examples, result) for the claims in docs/lectures.md, where
    `examples` is a list of names.
    """
    page = (ROOT / "docs/lectures.md").read_text()
    found = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    return [(int(number), re.findall("`(.*?)`", names), said) for number, _, names, said in found]


@pytest.fixture
def story(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import story

    yield story
    del sys.modules["story"]


def test_every_lecture_claim_names_examples_with_asserted_headings(story):
    claims = rows()
    assert [number for number, _, _ in claims] == list(range(1, 90))
    for number, names, _ in claims:
        assert names, number
        for name in names:
            assert name in story.ORDER and HEADINGS[name].controls, (number, name)


def test_examples_state_which_lecture_claims_are_wrong_or_half_right(story):
    claims = [(names, said) for _, names, said in rows() if "**" in said]
    assert len(claims) >= 12
    for names, said in claims:
        grade = re.search(r"\*\*(Wrong|[Hh]alf right)\*\*", said)[1].capitalize()
        texts = [text for name in names for text in story.corrections(name)]
        assert any(text.startswith(grade) for text in texts), (names, said)
