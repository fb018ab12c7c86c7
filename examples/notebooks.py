"""Write a notebook for each chapter of the lectures: its examples in their quick form, and
exercises. ``make notebooks`` does it.

python examples/notebooks.py [--out notebooks]

A notebook needs an installed fastcurv, scikit-learn and matplotlib, and no file of this folder.
There are two of each: one to hand out, and one with the answers to the exercises, which runs from
top to bottom. ``examples/exercises`` has the exercises as cells: the question, an answer, the check
of it in the notebook, and a wrong answer, with which a test holds that the check can fail.
"""

import argparse
import ast
import json
import re
from pathlib import Path

from story import FOLDER, STORY, claim, docstring, lectures

EXERCISES = FOLDER / "exercises"
CELL_HEAD = re.compile(r"^# %% (.*)\n", re.MULTILINE)
LOCAL_MODULES = ("common", "critical")  # modules of this folder, which a notebook brings along
SMALLER = (
    "*The heading and the text are about the table that the gallery draws. The cell below runs a "
    "smaller experiment, with fewer starts and settings, so the numbers it prints differ.*"
)
INVITATION = "This chapter as a notebook, with exercises"
ADD_MODULE = """import sys
import types


def add_module(name, source):
    \"\"\"Make what the examples import from a module of their folder.\"\"\"
    sys.modules[name] = types.ModuleType(name)
    exec(source, vars(sys.modules[name]))
"""
# What takes the place of functions of `common` that write or read files.
REPLACEMENTS = {
    "save": '''def save(figure, script, out):
    """Show a picture below the cell."""
    from IPython.display import Image, display

    figure = getattr(figure, "figure", figure)
    for ax in figure.axes:
        plots.plain_numbers(ax.xaxis, ax.yaxis)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    display(Image(file.getvalue()))''',
    "table_of": '''def table_of(script, experiment, scale):
    """Return the columns of an experiment, made now."""
    return columns(experiment(scale))''',
}


def file_name(chapter):
    """Return the name of a chapter's exercises and notebooks, without the ending."""
    return "_".join(re.findall(r"[a-z]+", chapter.lower().replace("'", "")))


CHAPTERS = tuple(c for c in STORY if (EXERCISES / f"{file_name(c)}.py").exists())


def exercises(chapter):
    """Return the exercises of a chapter: a dict with question, answer, check and wrong for each."""
    parts = CELL_HEAD.split((EXERCISES / f"{file_name(chapter)}.py").read_text())[1:]
    found = []
    for kind, text in zip(parts[::2], parts[1::2]):
        if kind == "[markdown]":
            found.append({"question": re.sub(r"^# ?", "", text.strip(), flags=re.MULTILINE)})
        else:
            found[-1][kind] = text.strip()
    return found


def notebook(chapter, *, answers):
    """Return the notebook of a chapter, in version 4.5 of Jupyter's format, as a dict."""
    names = STORY[chapter]
    cells = [
        markdown(
            f"# {chapter}\n\nThe examples of this chapter of fastcurv's gallery, each in its quick "
            "form, and exercises. It needs fastcurv (`pip install -e .` in its repository), "
            "scikit-learn and matplotlib."
        ),
        code(helpers(names), hidden=True),
    ]
    for name in names:
        sources = [f"*Lecture: {lecture}*" for lecture in lectures(name)]
        smaller = [SMALLER] if (FOLDER / "data" / f"{name}.csv").exists() else []
        text = "\n\n".join([f"## {claim(name)}", *sources, *smaller, *docstring(name)[1:]])
        cells += [markdown(text), code(f'{body(name)}\n\n\nprint(main("quick").sentence)')]
    cells.append(markdown("## Exercises"))
    for exercise in exercises(chapter):
        cells.append(markdown(exercise["question"]))
        given = exercise["answer"] if answers else "# your answer"
        cells += [code(given, hidden=answers), code(exercise["check"])]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def markdown(text):
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code(text, *, hidden=False):
    """Return a cell of code, folded if hidden."""
    metadata = {"jupyter": {"source_hidden": True}} if hidden else {}
    made = {"execution_count": None, "outputs": []}
    return {"cell_type": "code", "metadata": metadata, "source": text} | made


def body(name):
    """Return the code of an example without its docstring and the lines that run it from the
    shell.
    """
    text = (FOLDER / f"{name}.py").read_text()
    lines, nodes = text.splitlines(), ast.parse(text).body
    for node in nodes:
        if node in (nodes[0], nodes[-1]) or is_local(node):
            last = node.end_lineno
            lines[node.lineno - 1 : last] = [None] * (last - node.lineno + 1)
            if is_local(node):
                lines[node.lineno - 1] = f"from {node.module} import {', '.join(imported(node))}"
    kept = "\n".join(line for line in lines if line is not None)
    return kept.strip().replace("__file__", f'"{name}.py"')


def is_local(node):
    return isinstance(node, ast.ImportFrom) and node.module in LOCAL_MODULES


def imported(node):
    """Return the names that a notebook imports by an import line: all but the command line."""
    return [alias.name for alias in node.names if alias.name != "command_line"]


def helpers(names):
    """Return code that makes the shared modules, with the parts that these examples use."""
    wanted = {module: set() for module in LOCAL_MODULES}
    for name in names:
        for node in filter(is_local, ast.parse(body(name)).body):
            wanted[node.module] |= set(imported(node))
    made = [
        f"add_module({module!r}, r'''\n{part_of(module, used)}\n''')"
        for module, used in wanted.items()
        if used
    ]
    return "\n\n".join([ADD_MODULE, *made])


def part_of(module, wanted):
    """Return the definitions of a module that are wanted, and all that they use."""
    text = (FOLDER / f"{module}.py").read_text()
    known, imports = {}, {"io": "import io"}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                imports[alias.asname or alias.name] = ast.unparse(node)
        elif isinstance(node, ast.Assign):
            known[ast.unparse(node.targets[0])] = ast.get_source_segment(text, node)
        elif hasattr(node, "name"):
            first = min([node.lineno, *(line.lineno for line in node.decorator_list)])
            source = "\n".join(text.splitlines()[first - 1 : node.end_lineno])
            known[node.name] = REPLACEMENTS.get(node.name, source)
    found, open_names = set(), set(wanted)
    while open_names:
        name = open_names.pop()
        found.add(name)
        tree = ast.walk(ast.parse(known.get(name, "")))
        open_names |= {node.id for node in tree if isinstance(node, ast.Name)} - found
    lines = dict.fromkeys(line for name, line in imports.items() if name in found)
    parts = [source for name, source in known.items() if name in found]
    return "\n\n\n".join(["\n".join(lines), *parts])


def write(folder):
    """Write both notebooks of every chapter, and return their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for chapter in CHAPTERS:
        for ending in ("", "_answers"):
            paths.append(folder / f"{file_name(chapter)}{ending}.ipynb")
            made = notebook(chapter, answers=bool(ending))
            paths[-1].write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", default="notebooks", help="folder (default %(default)s)")
    for path in write(parser.parse_args().out):
        print(path)
