"""Mutants of the Python layer, drawn at random: how many the tests of their room notice.

    python -m tests.tools.mutate [--count 100] [--seed 0] [--room spectrum] [--folder build/mutate]

Each mutant changes one comparison, sign, operator, number, `and` or `or`, `not`, True or False, in
code and not in what is said of it. The tests of its room run against a copy of the checkout until
the first fails; those of the rooms built on it follow where none does. Mutants that live are
printed with their line. The exit status is 1 where fewer than 85% are killed.
"""

from __future__ import annotations

import argparse
import ast
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .mutants import ROOT, copy_checkout

WANTED = 85.0
SECONDS = 240.0  # for the tests of one room: a mutant that takes longer hangs
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
COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
JOINED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


def silent(tree: ast.AST) -> set[int]:
    """The ids of nodes that compute nothing: types, errors raised, what is said in f-strings,
    protocols, the head of the module's lists of names.
    """
    found: set[int] = set()

    def hide(node: ast.AST | None) -> None:
        if node is not None:
            found.update(map(id, ast.walk(node)))

    for node in ast.walk(tree):
        if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)):
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


def mutations(tree: ast.AST) -> Iterator[tuple[ast.AST, str, object, object]]:
    """(node, field, what stands there, what shall stand there)."""
    hidden = silent(tree)
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
        every += [(path, i) for i, _ in enumerate(mutations(ast.parse(path.read_text())))]
    return random.Random(seed).sample(every, min(count, len(every)))


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "fastcurv").parts
    return parts[0] if len(parts) > 1 else path.stem


def applied(text: str, number: int) -> tuple[str, int, str, str]:
    """The mutated text, the line, and the code before and after."""
    tree = ast.parse(text)
    node, field, _, new = list(mutations(tree))[number]
    before = ast.unparse(node).split("\n")[0]
    setattr(node, field, new)
    ast.fix_missing_locations(tree)
    return ast.unparse(tree), node.lineno, before, ast.unparse(node).split("\n")[0]


def noticed(folder: Path, tests: list[str]) -> bool:
    """Whether a test fails, or they take too long."""
    for name in tests:
        if not (folder / "tests" / name).exists():
            continue
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        command += ["-k", "not killed and not threads_of", f"tests/{name}"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return True
        if done.returncode:
            return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--room", choices=sorted(TESTS))
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutate")
    asked = parser.parse_args()
    copy_checkout(asked.folder)
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(build, cwd=asked.folder, check=True)
    chosen, killed = drawn(asked.count, asked.seed, asked.room), 0
    for done, (path, number) in enumerate(chosen, 1):
        target = asked.folder / path.relative_to(ROOT)
        text, begin = path.read_text(), time.time()
        changed, line, before, after = applied(text, number)
        target.write_text(changed)
        try:
            dies = noticed(asked.folder, TESTS[room_of(path)])
        finally:
            target.write_text(text)
        killed += dies
        where = f"{path.relative_to(ROOT)}:{line}"
        said = "killed" if dies else "LIVES "
        print(
            f"{said} {time.time() - begin:4.0f} s {where}: {before[:60]}  ->  {after[:60]}  "
            f"[{killed}/{done}]",
            flush=True,
        )
    share = 100 * killed / max(1, len(chosen))
    print(f"{killed} of {len(chosen)} killed, {share:.0f}%")
    return share < WANTED


if __name__ == "__main__":
    raise SystemExit(main())
