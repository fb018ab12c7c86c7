"""What the README shows is what happens."""

import contextlib
import io
import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def test_ten_lines_print_what_the_readme_says():
    code, output = re.search(
        r"```python\n((?:(?!```).)*)```\n\n```\n(.*?)```",
        README.read_text().partition("## Ten lines")[2],
        re.DOTALL,
    ).groups()
    assert len([line for line in code.splitlines() if line]) <= 12
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue() == output
