"""Every block of code on the site and in the README runs, in the order of its page, and pages
follow the site's rules.
"""

import ast
import doctest
import importlib.metadata
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastcurv as fc
from fastcurv.applications.diagnosis.diagnose import CAUSES
from fastcurv.common.protocols import INTERNAL_NAMES
from fastcurv.optimize.run import STATUS_CODES
from tests.public import public

ROOT = Path(__file__).resolve().parents[3]
WRITTEN = sorted(
    path
    for path in (ROOT / "docs").glob("*.md")
    if path.name not in ("gallery.md", "_pictures.md", "_commands.md")
)
PAGES = [ROOT / "README.md", *WRITTEN]
N_PAGE_PROCESSES = 3  # number of processes among which the pages are divided
# a block of code, and the output that is shown below it
PRINTED = re.compile(r"```python\n((?:(?!```).)*)```\n\n```\n(.*?)```", re.DOTALL)


def without_radius(text):
    """Return a text without the radii of its proofs, which depend on the kernels."""
    return re.sub(r"within 1e-1\d of theta", "near theta", text)


class OutputChecker(doctest.OutputChecker):
    """A comparison of outputs that ignores the radii of proofs."""

    def check_output(self, want, got, optionflags):
        return super().check_output(without_radius(want), without_radius(got), optionflags)


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def test_all_documentation_pages_are_found():
    assert {"tutorial", "mathematics", "cost", "limits"} <= {page.stem for page in PAGES}
    assert sum(len(blocks(page)) for page in PAGES) >= 12


def test_every_public_method_has_an_example():
    """Every public method has an example in its docstring, that of its class, or a page."""
    from fastcurv.network.operators import Curvature

    classes = [thing for thing in [*public().values(), Curvature] if inspect.isclass(thing)]
    told = "".join(page.read_text() for page in PAGES) + "".join(map(inspect.getdoc, classes))
    missing = []
    for thing in classes:
        for name, method in vars(thing).items():
            method = getattr(method, "__func__", method)
            if name.startswith("_") or name in INTERNAL_NAMES or not inspect.isfunction(method):
                continue
            if ">>>" not in (inspect.getdoc(method) or "") and f".{name}(" not in told:
                missing.append(f"{thing.__name__}.{name}")
    assert not missing


SESSIONS = [page for page in WRITTEN if "```pycon" in page.read_text()]


@pytest.mark.parametrize("page", SESSIONS, ids=lambda page: page.stem)
def test_interactive_sessions_on_pages_print_their_shown_output(page):
    text = page.read_text()
    if "sklearn" in text:
        pytest.importorskip("sklearn")
    sessions = re.findall(r"^```pycon\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    test = doctest.DocTestParser().get_doctest("".join(sessions), {}, page.stem, None, 0)
    said = []
    runner = doctest.DocTestRunner(OutputChecker(), optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=said.append)
    assert not said, "".join(said)


def first_column(page, heading):
    """Return the set of words in code quotes in the first column of the first table below a heading
    of a page in docs.
    """
    text = (ROOT / "docs" / page).read_text().partition(f"## {heading}\n")[2]
    table = re.search(r"^\|[- |]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)[1]
    return {
        word for row in table.splitlines() for word in re.findall(r"`(\w+)`", row.split("|")[1])
    }


def test_pages_advise_for_every_verdict_kind_and_every_ending():
    kinds = {"minimum", "maximum", "saddle", "degenerate", "not_critical", "undecided"}
    assert first_column("verdicts.md", "What do I do now?") == kinds
    endings = first_column("estimators.md", "When success is False") - {"saddle", "undecided"}
    assert endings == set(STATUS_CODES) - {"lower_bound", "target"}


def test_the_page_on_diagnosis_lists_every_cause():
    """The table in docs/diagnose.md lists every cause of `diagnose`."""
    text = (ROOT / "docs" / "diagnose.md").read_text()
    rows = re.findall(r"^\| ([a-zA-Z0-9 ]+) \|", text.partition("| evidence |")[2], re.MULTILINE)
    assert rows == list(dict.fromkeys(cause.name for cause in CAUSES))


def test_pages_belong_to_a_group_and_their_links_have_targets():
    """Every page belongs to exactly one of four groups. Every relative link leads to an existing
    file of the repository that is not generated. No page has a role of Sphinx in place of a link,
    because other viewers print such roles.
    """
    trees = {}
    for page in WRITTEN:
        for tree in re.findall(
            r"^```{toctree}\n:hidden:\n\n(.*?)```", page.read_text(), re.M | re.S
        ):
            trees[page.stem] = re.findall(r"([\w-]+)>?$", tree, re.M)
    settings = (ROOT / "docs/conf.py").read_text()
    trees["api"] = re.search(r'^REFERENCE_PAGES = "(.*)"$', settings, re.M)[1].split()
    groups = trees.pop("index")
    assert groups == ["install", "which-call", "mathematics", "api"]
    assert set(trees) == set(groups)
    listed = [*groups, *(name for tree in trees.values() for name in tree)]
    assert len(listed) == len(set(listed))
    written = {page.stem for page in WRITTEN if page.stem != "index"}
    assert set(listed) == {*written, "gallery", "api"}
    pages = [*PAGES, *ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md")]
    generated = {ROOT / "docs" / name for name in ("gallery.md", "_pictures.md", "api.rst")}
    for page in pages:
        assert not re.search(r"\{(doc|ref)\}`", page.read_text()), page.name
        for target in re.findall(r"\]\((?!https?:|#)([^)\s#]+)", page.read_text()):
            there = (page.parent / target).resolve()
            if there.is_relative_to(ROOT / "fastcurv"):  # modules may be installed elsewhere
                there = Path(fc.__file__).parent / there.relative_to(ROOT / "fastcurv")
            assert there.exists() and there not in generated, (page.name, target)
            assert "generated" not in there.parts, (page.name, target)


def test_the_readme_on_a_package_index_has_no_relative_links():
    shown = importlib.metadata.metadata("fastcurv").json["description"]
    assert "Limits (`docs/limits.md`)" in shown and "A saddle of a digit classifier" not in shown
    assert not re.findall(r"\]\((?!https?:)", shown)


def function_of_conf(name):
    """Return the function `name` of docs/conf.py without executing the rest of that file."""
    functions = ast.parse((ROOT / "docs/conf.py").read_text())
    functions.body = [part for part in functions.body if isinstance(part, ast.FunctionDef)]
    names = {"re": re}
    exec(compile(functions, "conf.py", "exec"), names)
    return names[name]


def test_public_names_in_code_link_to_their_reference_pages():
    text = "`fc.eigsh`, `fc.nothing` and [`fc.trace`](x)\n```python\n`fc.trace`\n```\n`fc.trace`."
    assert function_of_conf("linked")(text, fc.__all__) == (
        "[`fc.eigsh`](generated/fastcurv.eigsh.rst), `fc.nothing` and [`fc.trace`](x)\n"
        "```python\n`fc.trace`\n```\n[`fc.trace`](generated/fastcurv.trace.rst)."
    )


def test_links_to_sources_become_links_to_generated_pages():
    text = "[gallery](../examples/), [API](../fastcurv/__init__.py), [it](../examples/left_out.py)"
    assert function_of_conf("linked_to_generated")(text) == (
        "[gallery](gallery.md), [API](api.rst), [it](#left-out)"
    )


@pytest.mark.parametrize("first", range(N_PAGE_PROCESSES))
def test_code_on_the_pages_runs(first, tmp_path):
    """The code blocks of each page run in order in one namespace without an error, and print the
    output shown on the page. A block is skipped if a package that it needs is not installed.
    """
    program, shown = [], []
    for page in PAGES[first::N_PAGE_PROCESSES]:
        code = []
        for block in blocks(page):
            needed = re.findall(r"^# needs: (\w+)$", block, re.MULTILINE)
            if all(importlib.util.find_spec(name) for name in needed):
                code.append(block)
        shown += [out for block, out in PRINTED.findall(page.read_text()) if block in code]
        code = "\n".join(code)
        program.append(
            f"exec(compile({code!r}, {page.name!r}, 'exec'), {{'__name__': '__main__'}})"
        )
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    installed = not (ROOT / "fastcurv" / "__init__.py").exists()
    run = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", "\n".join(program)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ) if installed else {**os.environ, "PYTHONPATH": path},
        timeout=1200,
    )
    assert run.returncode == 0, run.stderr
    for output in shown:
        assert without_radius(output) in without_radius(run.stdout)


def test_files_and_tests_named_in_tests_readme_exist():
    """Every file, folder and test named in tests/README.md exists. A test named without a file
    belongs to the file named before it.
    """
    named = re.findall(
        r"`(?:([\w/*]+(?:\.py|/))(?:::(\w+))?|(test_\w+))`", (ROOT / "tests/README.md").read_text()
    )
    assert len(named) > 60
    for name, test, alone in named:
        if name:
            found = [*(ROOT / "tests").rglob(name.rstrip("/")), *ROOT.glob(name)]
        assert found, name
        function = f"def {test or alone}("
        assert not test + alone or any(function in path.read_text() for path in found), function
