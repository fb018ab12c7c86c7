"""Scripted mutants of kernels and passes, each of which the tests must detect.

    python -m tests.tools.mutants [--only N,N,...] [--folder build/mutants] [--workers 2]

Each worker has a copy of the checkout, in which one mutant at a time is compiled and tested. A
mutant of a kernel is compiled into the AVX2 table of the C test program. If that program reports
"0 failed", and for mutants of passes, the extension is built with the mutant, and the tests of
products run. The mutant survives if they pass. The output is one line for each mutant and the count
of those killed. The exit status is 1 if a mutant survives or cannot be built. The tool needs gcc or
clang, and a processor with AVX2.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .mutants_table import KERNELS, PASSES

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["-std=gnu11", "-fPIC", "-pthread", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-ffp-contract=fast", "-Isrc", "-Isrc/kernels", f"-I{sysconfig.get_path('include')}"]
CORE = "build/cython/core.c"
TABLES = ("avx2", "avx512", "baseline", "reference")
TESTS = ["tests/network/test_products.py", "tests/network/test_blocks.py"]
TESTS += ["tests/network/test_batch_norm.py"]
TESTS += ["tests/network/test_l2.py", "tests/network/test_products_memory.py"]
TESTS += ["tests/engine/test_panels.py", "tests/engine/test_plans.py"]
TESTS += ["tests/engine/test_gauss_newton.py", "tests/engine/test_kernels_losses.py"]


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


class BuildError(Exception):
    """A mutant, or the checkout without one, cannot be compiled or linked."""


class Build:
    """A copy of the checkout with the object files of the engine and of the C test program.

    The objects of a mutant have names of their own, so that those without a mutant stay.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Compile everything, and exit with an error if a test fails without a mutant."""
        copy_checkout(self.folder)
        (self.folder / "build" / "cython").mkdir(parents=True, exist_ok=True)
        sources = [path.relative_to(self.folder) for path in self.folder.glob("src/**/*.c")]
        sources = [*map(str, sources), "tests/engine/selftest.c", CORE]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self.translate()
            list(pool.map(self.compile, sources))
        for good, said in (self.run_program("", *TABLES), self.run_tests("")):
            if not good:
                raise SystemExit(f"the tests fail without a mutant: {said}")

    def make(self, command: list[str]) -> None:
        """Run a command that compiles or links."""
        good, said = run(command, self.folder)
        if not good:
            raise BuildError(f"{' '.join(command)}: {said}")

    def translate(self) -> None:
        """Write the C file of the extension module by Cython."""
        command = ["-m", "cython", "-3", "-o", CORE, "fastcurv/_engine/core.pyx"]
        self.make([sys.executable, *command])

    def object(self, source: str, mutant: str = "") -> str:
        return f"build/{mutant}{Path(source).stem}.o"

    def compile(self, source: str, mutant: str = "") -> None:
        # GCC contracts a * b + c only with -fexpensive-optimizations, which -O1 leaves out.
        level = ["-O0"] if source == CORE else ["-O1", "-fexpensive-optimizations"]
        output = ["-c", "-o", self.object(source, mutant), source]
        self.make([*compiler(), *FLAGS, *level, *output])

    def objects(self, names: list[str], mutant: str) -> list[str]:
        """Return the object files of these names: the mutant's, if it has one."""
        own = [self.object(name, mutant) for name in names]
        return [
            path if (self.folder / path).exists() else self.object(name)
            for name, path in zip(names, own)
        ]

    def run_program(self, mutant: str, *tables: str) -> tuple[bool, str]:
        objects = self.objects(["selftest", *TABLES], mutant)
        self.make([*compiler(), "-o", "build/program", *objects, "-lm"])
        return run(["build/program", *tables], self.folder)

    def run_tests(self, mutant: str) -> tuple[bool, str]:
        names = [path.stem for path in self.folder.glob("src/**/*.c")]
        objects = self.objects([*names, "core"], mutant)
        module = f"fastcurv/_engine/core{sysconfig.get_config_var('EXT_SUFFIX')}"
        self.make([*compiler(), "-shared", "-pthread", "-o", module, *objects, "-lm"])
        pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS]
        return run(pytest, self.folder, 900)

    def outcome(self, file: str, old: str, new: str) -> str:
        """Return "killed", "LIVES" if all tests pass with the mutant, or the error if it cannot be
        built and therefore shows nothing about the tests.
        """
        path, mutant = self.folder / file, "mutant-"
        before = path.read_text()
        path.write_text(mutated(before, old, new))
        try:
            if path.parent.name == "kernels":
                self.compile("src/kernels/avx2.c", mutant)
                if not self.run_program(mutant, "avx2")[0]:
                    return "killed"
                changed = [f"src/kernels/{name}.c" for name in TABLES]
            else:
                self.translate()
                changed = [CORE]
            for source in changed:
                self.compile(source, mutant)
            return "LIVES" if self.run_tests(mutant)[0] else "killed"
        except BuildError as error:
            return f"NOT BUILT ({error})"
        finally:
            path.write_text(before)
            for left in self.folder.glob(f"build/{mutant}*.o"):
                left.unlink()


def compiler() -> list[str]:
    return os.environ.get("CC", "cc").split()


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
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="mutants that are tested at a time"
    )
    asked = parser.parse_args()
    every = [(f"src/kernels/{file}", old, new) for file, old, new in KERNELS] + PASSES
    chosen = range(len(every)) if not asked.only else [int(n) for n in asked.only.split(",")]
    shutil.rmtree(asked.folder, ignore_errors=True)
    builds: queue.Queue[Build] = queue.Queue()
    first = Build(asked.folder.resolve() / "0")
    first.prepare()
    builds.put(first)
    for number in range(1, asked.workers):
        shutil.copytree(first.folder, copy := first.folder.with_name(str(number)))
        builds.put(Build(copy))

    def outcome(number: int) -> str:
        build, (file, old, new) = builds.get(), every[number]
        try:
            found = build.outcome(file, old, new)
        finally:
            builds.put(build)
        print(f"{number:3d} {found} {file}: {old}  ->  {new}", flush=True)
        return found

    with ThreadPoolExecutor(asked.workers) as pool:
        n_killed = [*pool.map(outcome, chosen)].count("killed")
    print(f"{n_killed} of {len(chosen)} killed")
    return n_killed < len(chosen)


if __name__ == "__main__":
    raise SystemExit(main())
