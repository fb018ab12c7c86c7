"""Notebooks of the gallery's chapters are complete without the examples' folder, and checks of
exercises accept the answer and reject a wrong one.
"""

import ast
import builtins
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

FOLDER = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def notebooks(monkeypatch):
    """Return the module of the examples' folder that writes the notebooks."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import notebooks

    yield notebooks
    for name in ("notebooks", "story", *notebooks.LOCAL_MODULES):
        sys.modules.pop(name, None)


def names_of(source):
    """Return (used, defined): the set of names that the source code uses, and the set of names that
    it defines anywhere.
    """
    used, defined = set(), set(dir(builtins))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, ast.alias):
            defined.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            defined.add(node.name)
    return used, defined


def test_each_chapter_has_a_complete_notebook(notebooks, tmp_path):
    lectured = [
        chapter
        for chapter, names in notebooks.STORY.items()
        if any(notebooks.lectures(name) for name in names)
    ]
    assert list(notebooks.CHAPTERS) == lectured and len(lectured) == 7
    paths = notebooks.write(tmp_path)
    assert len(paths) == 14
    for number, path in enumerate(paths):
        chapter, answers = notebooks.CHAPTERS[number // 2], bool(number % 2)
        made = json.loads(path.read_text())
        cells = made["cells"]
        assert made["nbformat"] == 4 and len({cell["id"] for cell in cells}) == len(cells)
        source = "\n".join(cell["source"] for cell in cells)
        for name in notebooks.STORY[chapter]:
            assert f"## {notebooks.claim(name)}" in source
        assert source.count('print(main("quick").sentence)') == len(notebooks.STORY[chapter])
        n_blank = 0 if answers else len(notebooks.exercises(chapter))
        assert source.count("# your answer") == n_blank
        code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
        exec(code[0], {})
        tree = list(ast.walk(ast.parse("\n\n".join(code))))
        sources = [
            node.args[1].value for node in tree if ast.unparse(node).startswith("add_module(")
            and isinstance(node, ast.Call)
        ]  # fmt: skip
        assert 1 <= len(sources) <= 2
        for source in [*sources, *(["\n\n".join(code)] if answers else [])]:
            used, defined = names_of(source)
            assert used <= defined, used - defined
        for node in tree:
            if isinstance(node, ast.ImportFrom) and (FOLDER / f"{node.module}.py").exists():
                assert node.module in notebooks.LOCAL_MODULES
                assert all(hasattr(sys.modules[node.module], name.name) for name in node.names)


def test_checks_of_exercises_accept_the_answer_and_reject_a_wrong_one(notebooks):
    for chapter in notebooks.CHAPTERS:
        exercises, names = notebooks.exercises(chapter), {}
        assert len(exercises) >= 2
        for exercise in exercises:
            assert set(exercise) == {"question", "answer", "check", "wrong"}
            tree = ast.parse(exercise["answer"]).body
            given = {node.name for node in tree if isinstance(node, ast.FunctionDef)}
            given |= {ast.unparse(node.targets[0]) for node in tree if isinstance(node, ast.Assign)}
            wanted = given & names_of(exercise["check"])[0]
            assert wanted and all(f"`{name}" in exercise["question"] for name in wanted)
            exec(exercise["answer"], names)
            exec(exercise["check"], names)
            wrong = dict(names)
            exec(exercise["wrong"], wrong)
            with pytest.raises(AssertionError):
                exec(exercise["check"], wrong)


@pytest.mark.nightly
def test_notebooks_run_from_top_to_bottom(notebooks, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for path in notebooks.write(tmp_path)[1::2]:
        made = nbformat.read(path, 4)
        nbformat.validate(made)
        resources = {"metadata": {"path": str(tmp_path)}}
        client.NotebookClient(made, timeout=900, resources=resources).execute()
        outputs = [out for cell in made.cells for out in cell.get("outputs", ())]
        shown = sum("image/png" in out.get("data", {}) for out in outputs)
        assert shown == sum(
            cell.source.endswith('print(main("quick").sentence)') for cell in made.cells
        )
