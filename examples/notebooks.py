"""Write a notebook for each chapter of the lectures: its examples in their quick form, and two
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

from story import HERE, STORY, claim, docstring, lectures

EXERCISES = HERE / "exercises"
CELL = re.compile(r"^# %% (.*)\n", re.MULTILINE)
LOCAL = ("common", "critical", "story")  # modules of this folder, which a notebook does not have
INVITATION = "This chapter as a notebook, with two exercises"
SHOWN = '''import io

from IPython.display import Image, display


def save(figure, script, out):
    """Show a picture below the cell."""
    figure = getattr(figure, "figure", figure)
    for ax in figure.axes:
        plots.plain_numbers(ax.xaxis, ax.yaxis)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    display(Image(file.getvalue()))


def table_of(script, experiment, scale):
    """Return the columns of an experiment, made now."""
    return columns(experiment(scale))
'''


def file_name(chapter):
    """Return the name of a chapter's exercises and notebooks, without the ending."""
    return "_".join(re.findall(r"[a-z]+", chapter.lower().replace("'", "")))


CHAPTERS = tuple(c for c in STORY if (EXERCISES / f"{file_name(c)}.py").exists())


def exercises(chapter):
    """Return the exercises of a chapter: a dict with question, answer, check and wrong for each."""
    parts = CELL.split((EXERCISES / f"{file_name(chapter)}.py").read_text())[1:]
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
            "form, and two exercises. It needs `pip install fastcurv scikit-learn matplotlib`."
        ),
        code(helpers(names), hidden=True),
    ]
    for name in names:
        sources = [f"*Lecture: {lecture}*" for lecture in lectures(name)]
        text = "\n\n".join([f"## {claim(name)}", *sources, *docstring(name)[1:]])
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
    """Return a cell of code; a hidden one is folded."""
    metadata = {"jupyter": {"source_hidden": True}} if hidden else {}
    made = {"execution_count": None, "outputs": []}
    return {"cell_type": "code", "metadata": metadata, "source": text} | made


def body(name):
    """Return the code of an example without its docstring, the imports from this folder and what
    runs it from the shell.
    """
    text = (HERE / f"{name}.py").read_text()
    lines, nodes = text.splitlines(), ast.parse(text).body
    for node in (nodes[0], nodes[-1], *nodes):
        if node in (nodes[0], nodes[-1]) or getattr(node, "module", "") in LOCAL:
            lines[node.lineno - 1 : node.end_lineno] = [None] * (node.end_lineno - node.lineno + 1)
    kept = "\n".join(line for line in lines if line is not None)
    return re.sub(r"\n{4,}", "\n\n\n", kept).strip().replace("__file__", f'"{name}.py"')


def helpers(names):
    """Return the shared code that the examples of these names use, and what this code uses."""
    known, imports = {}, {}
    for module in LOCAL[:2]:
        text = (HERE / f"{module}.py").read_text()
        for node in ast.parse(text).body:
            for name in defined(node):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    if getattr(node, "module", "") not in LOCAL:
                        imports[name] = (node, ast.get_source_segment(text, node))
                else:
                    known[name] = (node, with_decorators(text, node))
    own = {name: node for node in ast.parse(SHOWN).body for name in defined(node)}
    wanted, found, used = {"Outcome", "plots"}, {}, {}
    for name in names:
        wanted |= used_names(ast.parse(body(name)))
    wanted |= used_names(ast.parse(SHOWN))
    while wanted:
        name = wanted.pop()
        if name in known and name not in own and name not in found:
            found[name] = known[name]
            wanted |= used_names(known[name][0])
        elif name in imports:
            used[name] = imports[name]
    lines = sorted({source for _, source in used.values()}, key=len)
    ordered = [source for name, (_, source) in known.items() if name in found]
    return "\n".join(lines) + "\n" + SHOWN + "\n\n" + "\n\n\n".join(dict.fromkeys(ordered))


def defined(node):
    """Return the names that a statement at the top of a module defines."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    if isinstance(node, ast.Assign):
        return [
            name.id for target in node.targets for name in ast.walk(target) if hasattr(name, "id")
        ]
    return [node.name] if hasattr(node, "name") else []


def used_names(tree):
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def with_decorators(text, node):
    """Return the source of a definition, with its decorators."""
    first = min([node.lineno, *(line.lineno for line in getattr(node, "decorator_list", []))])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])


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
