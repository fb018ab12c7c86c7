"""Each claim in the list of lectures is shown by an example whose heading a test asserts."""

import re
import sys
from pathlib import Path

import pytest

from ..headings.table import HEADINGS

ROOT = Path(__file__).resolve().parents[3]


def rows():
    """Return a list of (number, examples, result) for the claims in docs/lectures.md by number,
    where `examples` is a list of names. Claims without a result hold.
    """
    page = (ROOT / "docs/lectures.md").read_text()
    claims = []
    for numbers, rest in re.findall(r"^\| (\d+(?:, \d+)*) \| (.+) \|$", page, re.MULTILINE):
        _, *said, names = rest.split(" | ")
        examples = re.findall(r"\[`(\w+)`\]\(../examples/\1.py\)", names)
        claims += [(int(number), examples, said) for number in numbers.split(", ")]
    return [(number, names, said[0] if said else "holds") for number, names, said in sorted(claims)]


@pytest.fixture
def story(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import story

    yield story
    del sys.modules["story"]


def test_every_lecture_claim_names_examples_with_asserted_headings(story):
    claims = rows()
    assert [number for number, _, _ in claims] == list(range(1, 99))
    for number, names, _ in claims:
        assert names, number
        for name in names:
            assert name in story.ORDER and name in HEADINGS, (number, name)


def test_examples_state_which_lecture_claims_are_wrong_or_half_right(story):
    claims = [(names, said) for _, names, said in rows() if "**" in said]
    assert len(claims) >= 12
    for names, said in claims:
        grade = re.search(r"\*\*(Wrong|[Hh]alf right)\*\*", said)[1].capitalize()
        texts = [text for name in names for text in story.corrections(name)]
        assert any(text.startswith(grade) for text in texts), (names, said)
