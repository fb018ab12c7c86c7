"""Mutations of the Python layer, except those that no caller could notice.

A mutation changes one comparison (its boundary or direction), one sign or operator, one number,
`and` for `or`, a condition for its negation, or True for False. The following is not mutated:

- text: errors raised, warnings, f-strings, the choice between two endings of a word, and whether a
  field is part of a repr;
- code for tools only: annotations, overloads, decorators, type variables and imports for types;
- the index of ``self.shape[0]`` and the like for square operators, because both sizes are equal;
- numbers in `TUNED`, such as block sizes and thresholds between two ways to the same result, and
  the side on which such a threshold lies;
- seeds that are numbers, because any seed would do, and the duration of sleeps.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

# Constants that affect only time and memory: sizes of blocks, and costs of equivalent methods.
TUNED = {
    "common/checks.py": {"MAX_ROW_BLOCK_ENTRIES"},
    "distributed.py": {"MAX_STATES_PER_SHARD", "WORKER_POLL_SECONDS", "SEPARATE_TASK_MIN_BYTES"},
    "common/linalg.py": {"N_COLUMNS_PER_CHECK", "LONG_EIGENSYSTEM_MIN_N"},
    "applications/estimators/sizes.py": {"FLOAT32_MIN_FLOPS"},
    "common/files.py": {"MAX_IO_PIECE_BYTES"},
    "krylov/lanczos.py": {
        "MAX_BLOCK_BYTES",
        "N_INITIAL_ROWS",
        "MIN_POOLED_BASIS_BYTES",
        "MAX_POOLED_BASIS_BYTES",
    },
    "network/output_space.py": {"D_ROWS_PER_PRODUCT"},
    "network/input_space.py": {"ROTATION_MIN_PARAMS", "ROTATION_MIN_FRACTION_SAVED"},
    "network/mlp.py": {"MAX_PREDICT_STATE_BYTES"},
    "network/objective.py": {"NO_COPY_MIN_BYTES"},
    "network/operators.py": {"MAX_EMBEDDED_BYTES"},
    "network/row_views.py": {"N_DENSE_BLOCK_COLUMNS"},
    "network/sample_space.py": {"ROWS_PER_ROTATION"},
    "network/sparse.py": {"KEPT"},
    "certify/dense_hessian.py": {"MAX_STACK_BYTES"},
    "certify/passes.py": {"MIN_CHUNK_BYTES", "MAX_JOINT_FLOPS", "MAX_KEPT_STATE_BYTES"},
    "spectrum/forms.py": {"IDENTITY_BLOCK_COLUMNS"},
    "spectrum/eigsh.py": {"MAX_BASIS_BYTES"},
    "structure/orbits.py": {"MAX_TANGENTS_BYTES"},
    "common/vectors.py": {"N_PANEL_COLUMNS", "SHORT"},
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
IGNORED_CALLS = {"warn", "default_rng", "SeedSequence", "sleep", "TypeVar", "ParamSpec"}


def chooses_wording(node: ast.AST) -> bool:
    """Return True if the node is a conditional expression between two strings of at most three
    characters, such as endings of a word.
    """
    parts = (node.body, node.orelse) if isinstance(node, ast.IfExp) else (None,)
    said = [part.value if isinstance(part, ast.Constant) else None for part in parts]
    return all(isinstance(word, str) and len(word) <= 3 for word in said)


def called_name(node: ast.AST) -> str:
    """Return the name of the function that a call uses, without the modules or objects before it,
    or "" if the function has no name.
    """
    of = node.func if isinstance(node, ast.Call) else node
    return of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else ""


def ignored_parts(node: ast.AST, name: str = "") -> list[ast.AST | None]:
    """Return the parts of a node that are not mutated, as listed at the head of this file. `name`
    is that of the node's file.
    """
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) in SQUARE:
        return [node.slice] if name not in RECTANGULAR else []
    if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)) or chooses_wording(
        node
    ):
        return [node]
    if isinstance(node, ast.ClassDef):
        return [*node.decorator_list]
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        if any(called_name(word) == "overload" for word in node.decorator_list):
            return [node]
        words = [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs]
        return [node.returns, *node.decorator_list, *(word.annotation for word in words)]
    if isinstance(node, ast.AnnAssign):
        return [node.annotation]
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return [node]
    if isinstance(node, ast.Call):
        if called_name(node) in IGNORED_CALLS:
            given = [*node.args, *(word.value for word in node.keywords)]
            return [x for x in given if called_name(node) != "sleep" or not isinstance(x, ast.Call)]
        if called_name(node) == "field":
            return [word.value for word in node.keywords if word.arg == "repr"]
    return []


def ignored_ids(tree: ast.AST, tuned: set[str], name: str) -> set[int]:
    """Return the ids of all nodes of a tree that are not mutated, including values assigned to the
    constants in `tuned`.
    """
    hidden: list[ast.AST | None] = []
    for node in ast.walk(tree):
        hidden += ignored_parts(node, name)
        if isinstance(node, ast.Assign) and tuned:
            names = {word.id for at in node.targets for word in ast.walk(at) if hasattr(word, "id")}
            hidden += [node] if names <= tuned else []
    return {id(part) for node in hidden if node is not None for part in ast.walk(node)}


def imported_tuned(tree: ast.AST) -> set[str]:
    """Return the names, as used in this file, of constants in `TUNED` that the file imports."""
    return {
        word.asname or word.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for file, names in TUNED.items()
        for word in node.names
        if file.removesuffix(".py").endswith(node.module.replace(".", "/")) and word.name in names
    }


def mutations(tree: ast.AST, name: str = "") -> Iterator[tuple[ast.AST, str, object, object]]:
    """Yield (node, field, old, new) for each mutation of the tree of the file `name`, where `field`
    is the attribute of the node that is changed.
    """
    tuned = TUNED.get(name, set())
    hidden = ignored_ids(tree, tuned, name)
    tuned = tuned | imported_tuned(tree)
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED:
            edge = isinstance(node.ops[0], EDGES)
            if not (edge and {called_name(x) for x in (node.left, *node.comparators)} & tuned):
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
    """Return `count` random mutations as pairs (file name, index), each equally probable, in the
    given subpackages, by default all except test doubles, and in files with the given ends.
    """
    every = []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        subpackage = subpackage_of(name)
        chosen = subpackage in subpackages if subpackages else subpackage != "testing"
        if chosen and (not ends or name.endswith(ends)):
            tree = ast.parse(path.read_text())
            every += [(name, i) for i, _ in enumerate(mutations(tree, name))]
    return random.Random(seed).sample(every, min(count, len(every)))


def subpackage_of(name: str) -> str:
    """Return the folder of a file below the package or below applications/, or the name of the file
    without its ending if the file is in common/ or in no folder.
    """
    name = name.removeprefix("common/").removeprefix("applications/")
    return name.split("/")[0].removesuffix(".py")


class Change(NamedTuple):
    """A mutated tree, the range of original lines that the mutated node occupies, and its text
    before and after.
    """

    tree: ast.Module
    lines: range
    function: range  # lines of the enclosing function; empty at module level
    before: str
    after: str


def applied(text: str, number: int, name: str) -> Change:
    """Return the Change for mutation `number` of the file `name` with content `text`."""
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
