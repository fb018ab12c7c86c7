"""Scripted mutants of kernels and passes, each of which the tests must detect.

    python -m tests.tools.mutants [--only N,N,...] [--folder build/mutants]

A mutant of a kernel is compiled into the C test program (the AVX2 and reference tables at -O1). If
that program reports "0 failed", and for mutants of passes, the extension is built with the mutant
in a copy of the checkout. The mutant survives if the tests of products pass. The output is one line
for each mutant and the count of survivors. The exit status is 1 if a mutant survives. The tool
needs gcc or clang on x86-64.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from .mutants_table import KERNELS, PASSES

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["-std=gnu11", "-O1", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
TABLES = ("avx2", "avx512", "baseline", "reference")
TESTS = ["tests/network/test_products.py", "tests/network/test_blocks.py"]
TESTS += ["tests/network/test_batch_norm.py"]
TESTS += ["tests/network/test_l2.py", "tests/network/test_products_memory.py"]
TESTS += ["tests/engine/test_panels.py", "tests/engine/test_plans.py"]
TESTS += ["tests/engine/test_gauss_newton.py"]


def mutated(text: str, old: str, new: str) -> str:
    """Return `text` with the only occurrence of `old`, for any white space, replaced by `new`. Exit
    with an error if `old` does not occur exactly once.
    """
    pattern = r"\s*".join(re.escape(word) for word in old.split())
    found = list(re.finditer(pattern, text))
    if len(found) != 1:
        raise SystemExit(f"{len(found)} places hold {old!r}; wanted one")
    return text[: found[0].start()] + new + text[found[0].end() :]


def run(command: list[str], cwd: Path, seconds: int = 300) -> tuple[bool, str]:
    """Return (succeeded, text): True if the command succeeds within the given seconds of processor
    time for each of its processes, and the end of its output or "it hangs".
    """
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=20 * seconds,  # wall time, for commands that wait
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds)),
        )
    except subprocess.TimeoutExpired:
        return False, "it hangs"
    return done.returncode == 0, (done.stdout + done.stderr)[-300:]


class Kernels:
    """The C test program, of which one object file is compiled again for each mutant."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.compiler = folder / "kernels", os.environ.get("CC", "cc").split()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(ROOT / "src" / "kernels", self.folder / "src")
        self.compile("selftest", ROOT / "tests" / "engine" / "selftest.c")
        for name in TABLES:
            self.compile(name, self.folder / "src" / f"{name}.c")
        good, said = self.verdict({})
        if not good:
            raise SystemExit(f"the program fails without a mutant: {said}")

    def compile(self, name: str, source: Path, target: str | None = None) -> bool:
        options = [*FLAGS, "-Isrc", "-c", "-o", f"{target or name}.o", str(source)]
        return run([*self.compiler, *options], self.folder)[0]

    def verdict(self, instead: dict[str, str]) -> tuple[bool, str]:
        objects = [f"{instead.get(name, name)}.o" for name in ("selftest", *TABLES)]
        linked, said = run([*self.compiler, "-o", "program", *objects, "-lm"], self.folder)
        return run(["./program"], self.folder, 120) if linked else (False, said)

    def lives(self, file: str, old: str, new: str) -> tuple[bool, str]:
        path = self.folder / "src" / file
        before = path.read_text()
        path.write_text(mutated(before, old, new))
        try:
            table = "reference" if file.startswith("reference") else "avx2"
            if not self.compile(table, self.folder / "src" / f"{table}.c", "mutant"):
                return False, "it does not compile"
            return self.verdict({table: "mutant"})
        finally:
            path.write_text(before)


class Passes:
    """A copy of the checkout that is built in place, in which one module is built again for each
    mutant.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        copy_checkout(self.folder)
        for file, *_ in [*KERNELS, *PASSES]:  # an interrupted run may have left a mutant
            place = file if "/" in file else f"src/kernels/{file}"
            text = (ROOT / place).read_text()
            if (self.folder / place).read_text() != text:
                (self.folder / place).write_text(text)
        self.build()

    def build(self) -> bool:
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        return run(command, self.folder, 900)[0]

    def lives(self, file: str, old: str, new: str) -> tuple[bool, str]:
        path = self.folder / file
        before = path.read_text()
        path.write_text(mutated(before, old, new))
        try:
            if not self.build():
                return False, "it does not compile"
            pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS]
            return run(pytest, self.folder, 900)
        finally:
            path.write_text(before)
            later = time.time() + 2  # newer than the files built with the mutant
            os.utime(path, (later, later))


def copy_checkout(folder: Path) -> None:
    """Copy the tracked files of the repository into `folder`. Newer files in `folder` are kept,
    except for Python files, because an interrupted run may have left a mutant. Python files that
    are no longer tracked are deleted.
    """
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        source, target = ROOT / name, folder / name
        if not source.is_file():
            continue
        if not target.exists():
            old = True
        elif name.endswith(".py"):
            old = source.read_bytes() != target.read_bytes()
        else:
            old = target.stat().st_mtime < source.stat().st_mtime
        if old:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    for room in ("fastcurv", "tests"):
        for path in (folder / room).rglob("*.py"):
            if path.relative_to(folder).as_posix() not in listed:
                path.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="their numbers, with commas between them")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutants")
    asked = parser.parse_args()
    every = [*KERNELS, *PASSES]
    chosen = range(len(every)) if not asked.only else [int(n) for n in asked.only.split(",")]
    maker = functools.cache(lambda kind: kind(asked.folder.resolve()))
    living = []
    for number in chosen:
        file, old, new = every[number]
        lives = number >= len(KERNELS) or maker(Kernels).lives(file, old, new)[0]
        if lives:
            place = file if number >= len(KERNELS) else f"src/kernels/{file}"
            lives, _ = maker(Passes).lives(place, old, new)
        living += [number] if lives else []
        print(f"{number:3d} {'LIVES' if lives else 'killed'} {file}: {old}  ->  {new}", flush=True)
    print(f"{len(chosen) - len(living)} of {len(chosen)} killed")
    return bool(living)


if __name__ == "__main__":
    raise SystemExit(main())
