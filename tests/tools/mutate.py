"""Mutants of the Python layer, drawn at random: how many the tests notice.

    python -m tests.tools.mutate [--count 100] [--seed 0] [--room spectrum] [--folder build/mutate]

Each mutant changes one comparison, sign, operator, number, `and` or `or`, `not`, True or False, in
code and not in what is said of it: messages, types, decorators, a choice between two endings of a
word. Constants in `TUNED` keep their values: they say how much is done at a time, and when to
change between two ways of the same answer, so that no answer tells. In a copy of the checkout, the
tests that run its line, as `make coverage` found them, run until the first fails or `--seconds` of
processor time are spent; without such data it is those of its room. A mutant counts as living where
no test failed within that time, and a test that fails without a mutant counts for nothing. Mutants
that live are printed with their line. The exit status is 1 where fewer than 85% are killed.
"""

from __future__ import annotations

import argparse
import ast
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from . import forked
from .covering import Covering
from .mutants import ROOT, copy_checkout

WANTED = 85.0
# The tests of a room, quick ones first, and a few of those who use it.
TESTS = {
    "structure": ["structure", "network/test_batch_norm.py", "critical/test_verdicts.py"],
    "rounding": ["rounding", "network/test_products.py", "critical/test_theorem.py"],
    "network": ["network", "properties/test_properties.py"],
    "krylov": ["spectrum", "critical/test_verdicts_large.py", "optimize/test_minimize.py"],
    "spectrum": ["spectrum", "critical/test_verdicts_large.py"],
    "critical": ["critical", "optimize/test_end.py"],
    "optimize": ["optimize"],
    "estimators": ["estimators"],
    "plots": ["plots"],
    "cli": ["cli"],
    "files": ["files", "network/test_saved.py"],
    "checks": ["network/test_bad_input.py", "network/test_held_arrays.py", "spectrum"],
    "eigensolver": ["spectrum/test_eigensolver.py", "spectrum"],
    "vectors": ["spectrum"],
    "runtime": ["engine/test_threads.py", "cli"],
    "interrupts": ["spectrum/test_eigsh.py", "reliability"],
    "progress": ["cli", "optimize/test_minimize.py"],
}
# What sees much of a room in little time comes before the tests of the line.
DEFAULTS = "tests/reliability/test_defaults.py"
FIRST = {
    "rounding": ["tests/rounding/test_figures.py"],
    "network": ["tests/network/test_network_figures.py"],
    "cli": [DEFAULTS],
}
# Constants that decide nothing but time and memory: blocks, prices of either of two equal ways.
TUNED = {
    "checks.py": {"SLAB"},
    "distributed.py": {"KEEP", "LOOK", "SENT"},
    "eigensolver.py": {"COLUMNS", "LONG"},
    "estimators/base.py": {"ONE_THREAD"},
    "files.py": {"PIECE"},
    "krylov/held.py": {"LEAST", "MOST"},
    "krylov/lanczos.py": {"BLOCK_BYTES", "LONGEST_BATCH"},
    "krylov/ritz.py": {"SMALL"},
    "network/input_space.py": {"LEAST", "SAVED"},
    "network/mlp.py": {"PREDICT_MEMORY"},
    "network/objective.py": {"HANDED_OUT"},
    "network/operators.py": {"DENSE_BLOCK", "EMBEDDED"},
    "network/output_space.py": {"BLOCK"},
    "network/reach.py": {"BLOCK", "MOST_BYTES", "TRIED"},
    "network/sample_layers.py": {"ROWS"},
    "network/sparse.py": {"KEPT"},
    "rounding/layered.py": {"BYTES"},
    "rounding/rowwise.py": {"CHUNK_BYTES", "JOINT_FLOPS", "KEPT_BYTES"},
    "spectrum/dense.py": {"BLOCK"},
    "spectrum/search.py": {"MAX_BASIS_BYTES"},
    "structure/orbits.py": {"MAX_BYTES"},
    "vectors.py": {"PANEL", "SHORT"},
}
COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
JOINED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


def ending(node: ast.AST) -> bool:
    """Whether a node chooses between two endings of a word, or two articles."""
    parts = (node.body, node.orelse) if isinstance(node, ast.IfExp) else (None,)
    said = [part.value if isinstance(part, ast.Constant) else None for part in parts]
    return all(isinstance(word, str) and len(word) <= 3 for word in said)


def silent(tree: ast.AST, tuned: set[str]) -> set[int]:
    """The ids of nodes that compute nothing: types, errors raised, what is said in f-strings,
    decorators, endings of words, constants in `tuned`.
    """
    found: set[int] = set()

    def hide(node: ast.AST | None) -> None:
        if node is not None:
            found.update(map(id, ast.walk(node)))

    for node in ast.walk(tree):
        if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)) or ending(node):
            hide(node)
        elif isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                hide(decorator)
        elif isinstance(node, ast.Assign) and tuned:
            names = {word.id for at in node.targets for word in ast.walk(at) if hasattr(word, "id")}
            if names <= tuned:
                hide(node)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            hide(node.returns)
            for word in [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs]:
                hide(word.annotation)
            for decorator in node.decorator_list:
                hide(decorator)
        elif isinstance(node, ast.AnnAssign):
            hide(node.annotation)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            hide(node)
    return found


def mutations(tree: ast.AST, name: str = "") -> Iterator[tuple[ast.AST, str, object, object]]:
    """(node, field, what stands there, what shall stand there), of the file of that name."""
    hidden = silent(tree, TUNED.get(name, set()))
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED:
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
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
            yield node, "value", node.value, node.value * 2 + 1


def drawn(count: int, seed: int, room: str | None) -> list[tuple[Path, int]]:
    """Places, as files and numbers of mutations in them: every mutation is as likely."""
    every = []
    for path in sorted((ROOT / "fastcurv").rglob("*.py")):
        name = room_of(path)
        if name not in TESTS or room not in (None, name):
            continue
        tree = ast.parse(path.read_text())
        every += [(path, i) for i, _ in enumerate(mutations(tree, named(path)))]
    return random.Random(seed).sample(every, min(count, len(every)))


def named(path: Path) -> str:
    return path.relative_to(ROOT / "fastcurv").as_posix()


def room_of(path: Path) -> str:
    first, *rest = named(path).split("/")
    return first if rest else path.stem


class Change(NamedTuple):
    """A mutated text, where it differs, and the code before and after."""

    text: str
    lines: range
    function: range  # the lines of the function around it; empty at the module's level
    before: str
    after: str


def applied(text: str, number: int, name: str) -> Change:
    """The text of the file of that name with one of its mutations."""
    tree = ast.parse(text)
    node, field, _, new = list(mutations(tree, name))[number]
    lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
    around = [
        range(f.body[0].lineno, (f.end_lineno or f.lineno) + 1)
        for f in ast.walk(tree)
        if isinstance(f, ast.FunctionDef) and f.lineno <= node.lineno <= (f.end_lineno or 0)
    ]
    if isinstance(node, (ast.If, ast.While)):
        lines = range(node.lineno, (node.test.end_lineno or node.lineno) + 1)
    before = ast.unparse(node).split("\n")[0]
    setattr(node, field, new)
    ast.fix_missing_locations(tree)
    after = ast.unparse(node).split("\n")[0]
    return Change(ast.unparse(tree), lines, min(around, key=len, default=range(0)), before, after)


class Noticing:
    """Runs tests on a mutated copy; knows which fail without a mutant."""

    def __init__(self, folder: Path, covering: Covering | None, seconds: float) -> None:
        self.folder, self.covering, self.seconds = folder, covering, seconds
        self.alone: dict[str, bool] = {}  # whether a test passes without a mutant

    def tests_of(self, path: Path, lines: range, function: range) -> list[str]:
        """Those that run the line; else its function, its file; else its room's."""
        found: list[str] = []
        first = list(FIRST.get(room_of(path), ()))
        if lines.start < function.start:  # a default, which is there before any test runs
            first.insert(0, DEFAULTS)
        if self.covering is not None:
            found = self.covering.tests(str(path.relative_to(ROOT)), lines, function)
            found = [test for test in found if (self.folder / test.split("::")[0]).exists()]
        if not found:
            names = [f"tests/{name}" for name in TESTS[room_of(path)]]
            found = [name for name in names if (self.folder / name).exists()]
        return [*first, *found]

    def killer(self, target: Path, changed: str, tests: list[str]) -> str | None:
        """The first test that fails with the changed text and not without it, or why none could
        run to its end.
        """
        text, stat = target.read_text(), target.stat()
        left = list(tests)
        while left:
            target.write_text(changed)
            try:
                failed = forked.first_failure(self.folder, left, self.seconds)
            finally:
                target.write_text(text)
                os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            if not failed or failed in (forked.IMPORT, forked.HANGS):
                return failed
            if failed not in self.alone:
                again = forked.first_failure(self.folder, [failed], self.seconds)
                self.alone[failed] = again is None
            if self.alone[failed]:
                return failed
            print(f"  {failed} fails without a mutant", flush=True)
            whole = failed.split("[")[0]
            left = [test for test in left if test not in (whole, whole.split("::")[0])]
        return None


def interval(killed: int, count: int) -> tuple[float, float]:
    """Wilson's 95% interval of the share, in percent."""
    if not count:
        return 0.0, 100.0
    z, share = 1.96, killed / count
    middle = share + z * z / (2 * count)
    width = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    scale = 100 / (1 + z * z / count)
    return scale * (middle - width), scale * (middle + width)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--room", choices=sorted(TESTS))
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutate")
    parser.add_argument("--covered", type=Path, default=ROOT / "build" / "coverage" / ".coverage")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no more after them")
    parser.add_argument("--first", type=int, default=0, help="how many of the drawn are passed by")
    asked = parser.parse_args()
    asked.folder = asked.folder.resolve()
    copy_checkout(asked.folder)
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(build, cwd=asked.folder, check=True)
    covering = Covering(asked.covered) if asked.covered.exists() else None
    noticing = Noticing(asked.folder, covering, asked.seconds)
    chosen, killed = drawn(asked.count, asked.seed, asked.room)[asked.first :], 0
    done, end = 0, time.monotonic() + 60 * asked.minutes
    for done, (path, number) in enumerate(chosen, 1):
        begin = time.time()
        change = applied(path.read_text(), number, named(path))
        tests = noticing.tests_of(path, change.lines, change.function)
        target = asked.folder / path.relative_to(ROOT)
        killer = noticing.killer(target, change.text, tests)
        killed += killer is not None
        where = f"{path.relative_to(ROOT)}:{change.lines.start}"
        said = "LIVES " if killer is None else "killed"
        print(
            f"{said} {time.time() - begin:4.0f} s {where}: {change.before[:60]}  ->  "
            f"{change.after[:60]}  [{killed}/{done}] {killer or ''}",
            flush=True,
        )
        if time.monotonic() > end:
            break
    low, high = interval(killed, done)
    share = 100 * killed / max(1, done)
    print(f"{killed} of {done} killed, {share:.0f}% (95% interval {low:.0f} to {high:.0f})")
    return share < WANTED


if __name__ == "__main__":
    raise SystemExit(main())
