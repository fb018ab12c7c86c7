"""What the README shows is what happens."""

import contextlib
import io
import re
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
BLOCK = re.compile(r"```python\n((?:(?!```).)*)```\n\n```\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("code, output", BLOCK.findall(README), ids=["recipe", "sklearn", "toy"])
def test_recipes_print_what_the_readme_says(code, output):
    """Each is short, and ends in a verdict that a first reader understands."""
    if "# needs: sklearn" in code:
        pytest.importorskip("sklearn")
    assert len([line for line in code.splitlines() if line]) <= 12
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue() == output
    assert re.search("A (minimum|saddle), proved", output)


def test_the_readme_begins_with_the_question_the_picture_and_the_commands():
    order = [
        README.index(x)
        for x in ("Where did training stop", "docs/demo.png", "make demo", "```python")
    ]
    assert order == sorted(order) and README.count("\n", 0, order[-1]) < 40
