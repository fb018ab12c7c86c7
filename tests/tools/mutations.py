"""What a mutant of the Python layer changes, and what is left out since no caller could tell.

Changed: one comparison (its edge, or its sense), one sign or operator, one number, `and` for `or`,
a condition for its contrary, True for False. Left out are

- what is said and not computed: errors raised, warnings, f-strings, which of two endings a word
  has, whether a field shows in a repr;
- what is read by tools: annotations, overloads, decorators, type variables, imports for types;
- which side of a square operator is asked for, as in ``self.shape[0]``: both are as long;
- numbers in `TUNED`, how much is done at a time and when to change between two ways of one answer,
  and on which side of such a number its edge lies;
- seeds written as a number, since any would serve, and how long a thread sleeps.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

# Constants that decide nothing but time and memory: blocks, prices of either of two equal ways.
TUNED = {
    "common/checks.py": {"SLAB_ENTRIES"},
    "distributed.py": {"MAX_STATES", "WORKER_POLL_SECONDS", "TASK_MIN_BYTES"},
    "common/linalg.py": {"COLUMNS_PER_CHECK", "LONG_EIGENSYSTEM_MIN_N"},
    "estimators/base.py": {"ONE_THREAD", "FLOAT32_MIN_FLOPS"},
    "common/files.py": {"PIECE_BYTES"},
    "krylov/lanczos.py": {"BLOCK_BYTES", "N_FIRST_ROWS", "MIN_KEPT_BYTES", "MAX_KEPT_BYTES"},
    "network/spaces.py": {"D_ROWS_PER_PRODUCT", "MIN_PARAMS", "MIN_FRACTION_SAVED"},
    "network/mlp.py": {"PREDICT_STATE_BYTES"},
    "network/objective.py": {"NO_COPY_MIN_BYTES"},
    "network/operators.py": {"DENSE_BLOCK_COLUMNS", "MAX_EMBEDDED_BYTES"},
    "certify/gram_bounds.py": {"BLOCK_COLUMNS", "MAX_BASES_BYTES", "MAX_RANK_RATIO"},
    "network/gram.py": {"ROWS_PER_ROTATION"},
    "network/sparse.py": {"KEPT"},
    "certify/dense_hessian.py": {"MAX_STACK_BYTES"},
    "certify/passes.py": {"CHUNK_BYTES", "MAX_JOINT_FLOPS", "MAX_KEPT_STATE_BYTES"},
    "spectrum/forms.py": {"BLOCK_COLUMNS"},
    "spectrum/eigsh.py": {"MAX_BASIS_BYTES"},
    "structure/symmetry.py": {"MAX_TANGENTS_BYTES"},
    "common/vectors.py": {"PANEL_COLUMNS", "SHORT"},
}
COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
JOINED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip

SQUARE = {f"{name}.shape" for name in ("self", "self.whole", "whole", "self.op", "op", "H")}
RECTANGULAR = {"network/operators.py", "network/linear_operator.py"}
EDGES = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
UNHEARD = {"warn", "default_rng", "SeedSequence", "sleep", "TypeVar", "ParamSpec"}


def ending(node: ast.AST) -> bool:
    """Whether a node chooses between two endings of a word, or two articles."""
    parts = (node.body, node.orelse) if isinstance(node, ast.IfExp) else (None,)
    said = [part.value if isinstance(part, ast.Constant) else None for part in parts]
    return all(isinstance(word, str) and len(word) <= 3 for word in said)


def called(node: ast.AST) -> str:
    """The last name of what a call calls."""
    of = node.func if isinstance(node, ast.Call) else node
    return of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else ""


def unheard(node: ast.AST, name: str = "") -> list[ast.AST | None]:
    """What of a node computes nothing: see the head of this file."""
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) in SQUARE:
        return [node.slice] if name not in RECTANGULAR else []
    if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)) or ending(node):
        return [node]
    if isinstance(node, ast.ClassDef):
        return [*node.decorator_list]
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        if any(called(word) == "overload" for word in node.decorator_list):
            return [node]
        words = [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs]
        return [node.returns, *node.decorator_list, *(word.annotation for word in words)]
    if isinstance(node, ast.AnnAssign):
        return [node.annotation]
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return [node]
    if isinstance(node, ast.Call):
        if called(node) in UNHEARD:
            given = [*node.args, *(word.value for word in node.keywords)]
            return [x for x in given if called(node) != "sleep" or not isinstance(x, ast.Call)]
        if called(node) == "field":
            return [word.value for word in node.keywords if word.arg == "repr"]
    return []


def silent(tree: ast.AST, tuned: set[str], name: str) -> set[int]:
    """The ids of nodes that compute nothing, and of what is assigned to constants in `tuned`."""
    hidden: list[ast.AST | None] = []
    for node in ast.walk(tree):
        hidden += unheard(node, name)
        if isinstance(node, ast.Assign) and tuned:
            names = {word.id for at in node.targets for word in ast.walk(at) if hasattr(word, "id")}
            hidden += [node] if names <= tuned else []
    return {id(part) for node in hidden if node is not None for part in ast.walk(node)}


def imported(tree: ast.AST) -> set[str]:
    """Names in `TUNED` that a file takes from the one that has them."""
    return {
        word.asname or word.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for file, names in TUNED.items()
        for word in node.names
        if file.removesuffix(".py").endswith(node.module.replace(".", "/")) and word.name in names
    }


def mutations(tree: ast.AST, name: str = "") -> Iterator[tuple[ast.AST, str, object, object]]:
    """(node, field, what stands there, what shall stand there), of the file of that name."""
    tuned = TUNED.get(name, set())
    hidden = silent(tree, tuned, name)
    tuned = tuned | imported(tree)
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED:
            edge = isinstance(node.ops[0], EDGES)
            if not (edge and {called(x) for x in (node.left, *node.comparators)} & tuned):
                yield node, "ops", node.ops, [COMPARED[type(node.ops[0])](), *node.ops[1:]]
        elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in JOINED:
            yield node, "op", node.op, JOINED[type(node.op)]()
        elif isinstance(node, ast.BoolOp):
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield node, "op", node.op, other
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            yield node, "op", node.op, ast.UAdd()
        elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
            yield node, "test", node.test, ast.UnaryOp(ast.Not(), node.test)
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield node, "value", node.value, not node.value
        elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            yield node, "value", node.value, node.value * 2 + 1


def drawn(
    package: Path, count: int, seed: int, subpackages: set[str], ends: tuple[str, ...] = ()
) -> list[tuple[str, int]]:
    """Places, as names of files and numbers of mutations in them: every mutation is as likely."""
    every = []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if subpackage_of(name) in subpackages and (not ends or name.endswith(ends)):
            tree = ast.parse(path.read_text())
            every += [(name, i) for i, _ in enumerate(mutations(tree, name))]
    return random.Random(seed).sample(every, min(count, len(every)))


def subpackage_of(name: str) -> str:
    """A folder, or a file that is a subpackage by itself: one of common/, or beside the folders."""
    return name.removeprefix("common/").split("/")[0].removesuffix(".py")


class Change(NamedTuple):
    """A mutated tree, whose lines are those of the text, and where it differs."""

    tree: ast.Module
    lines: range
    function: range  # the lines of the function around it; empty at the module's level
    before: str
    after: str


def applied(text: str, number: int, name: str) -> Change:
    """The text of the file of that name with one of its mutations."""
    tree = ast.parse(text)
    found: tuple[Any, str, Any, Any] = list(mutations(tree, name))[number]
    node, field, _, new = found
    lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
    around = [
        range(f.body[0].lineno, (f.end_lineno or f.lineno) + 1)
        for f in ast.walk(tree)
        if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef))
        and f.lineno <= node.lineno <= (f.end_lineno or 0)
    ]
    if isinstance(node, (ast.If, ast.While)):
        lines = range(node.lineno, (node.test.end_lineno or node.lineno) + 1)
    before = ast.unparse(node).split("\n")[0]
    setattr(node, field, new)
    ast.fix_missing_locations(tree)
    after = ast.unparse(node).split("\n")[0]
    return Change(tree, lines, min(around, key=len, default=range(0)), before, after)
