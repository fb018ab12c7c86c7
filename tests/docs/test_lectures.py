"""Each claim of the list of lectures is shown by an example, whose heading a test asserts."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def rows():
    """Return the number, the names of examples and the finding of every claim."""
    page = (ROOT / "docs/lectures.md").read_text()
    found = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    return [(int(number), re.findall("`(.*?)`", names), said) for number, _, names, said in found]


@pytest.fixture
def story(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import story

    yield story
    del sys.modules["story"]


def asserting():
    """Return the names of the tests of examples that assert something, in themselves or in a
    helper.
    """
    tree = ast.parse((ROOT / "tests/test_examples.py").read_text())
    tests = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    return {
        name
        for name, node in tests.items()
        if any(isinstance(x, ast.Assert) for x in ast.walk(node))
    }


def test_every_claim_names_examples_that_exist_and_are_asserted(story):
    claims = rows()
    assert [number for number, _, _ in claims] == list(range(1, 83))
    tests = asserting()
    for number, names, _ in claims:
        assert names, number
        for name in names:
            assert name in story.ORDER and f"test_{name}" in tests, (number, name)


def test_what_the_list_calls_wrong_or_half_right_the_example_says(story):
    claims = [(names, said) for _, names, said in rows() if "**" in said]
    assert len(claims) >= 12
    for names, said in claims:
        grade = re.search(r"\*\*(Wrong|[Hh]alf right)\*\*", said)[1].capitalize()
        texts = [text for name in names for text in story.corrections(name)]
        assert any(text.startswith(grade) for text in texts), (names, said)
