"""Random mutants of the Python layer, and the share that the tests detect.

    python -m tests.tools.mutate [--count 100] [--seed 0] [--subpackage spectrum ...]
        [--file run.py ...]
    python -m tests.tools.mutate --only optimize/run.py#62 ...

`mutations` lists the kinds of changes. In a copy of the checkout, the tests that run the mutated
line, as found by `make coverage`, run until one fails or `--seconds` of processor time are used.
Tests that detected other mutants in the file run first. Then follows one case of each test,
beginning with tests of the own subpackage and tests that run few lines, and then the other cases.
Without coverage data, the tests of the subpackage run. A mutant survives if no test fails within
that time. A test that also fails without the mutant does not count.

Code inside functions is replaced in a process that has collected the suite (`judge`). Code that
runs at import, such as constants and defaults, runs in a process that imports everything again
(`forked`). Surviving mutants are printed with their line. The exit status is 1 if fewer than 85%
are detected.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from . import forked
from .covering import Covering
from .mutants import ROOT, copy_checkout
from .mutations import Change, applied, drawn, subpackage_of

MIN_DETECTED_PERCENT = 85.0
N_TESTS_REPEATED = 5  # tests that detected other mutants of the file and run first
MAX_IMPORT_TESTS = 80  # tests of a mutant of code that runs at import
# Subpackages that are mutated: all except test doubles and modules without code.
SUBPACKAGES = (
    *("structure", "certify", "network", "krylov", "spectrum", "critical", "optimize"),
    *(
        "convert",
        "diagnosis",
        "estimators",
        "plots",
        "cli",
        "uncertainty",
        "files",
        "checks",
        "linalg",
        "vectors",
    ),
    *("runtime", "progress", "errors", "distributed"),
)
# Tests of each subpackage, fast ones first, and some tests of subpackages that use it.
TESTS = {
    "structure": ["structure", "network/test_batch_norm.py", "critical/test_verdicts.py"],
    "certify": ["certify", "network/test_products.py", "critical/test_theorem.py"],
    "network": ["network", "properties/test_properties.py"],
    "krylov": [
        "krylov",
        "spectrum",
        "critical/test_verdicts_large.py",
        "optimize/test_minimize.py",
    ],
    "spectrum": ["spectrum", "critical/test_verdicts_large.py"],
    "critical": ["critical", "optimize/test_final_point.py"],
    "optimize": ["optimize"],
    "diagnosis": ["applications/diagnosis"],
    "estimators": ["applications/estimators"],
    "plots": ["applications/plots"],
    "cli": ["applications/cli"],
    "uncertainty": ["applications/uncertainty"],
    "files": ["files"],
    "checks": ["network/test_bad_input.py", "network/test_held_arrays.py", "spectrum"],
    "linalg": ["spectrum/test_eigensolver.py", "spectrum"],
    "vectors": ["spectrum"],
    "runtime": [
        "engine/test_threads.py",
        "spectrum/test_eigsh.py",
        "reliability",
        "applications/cli",
    ],
    "convert": ["applications/convert", "files"],
    "errors": ["applications/test_foreign.py", "network/test_refusals.py"],
    "progress": ["applications/cli", "optimize/test_minimize.py"],
}
# Tests that check much of a subpackage in little time run before the tests of the line.
DEFAULTS = "tests/applications/reliability/test_defaults.py"
SPECTRA = "tests/spectrum/test_golden.py"
RUNS = "tests/optimize/test_golden.py"
VERDICTS = "tests/critical/test_golden.py"
BOUNDS = "tests/certify/test_golden.py"
FORMS = "tests/network/test_golden.py"
FIRST = {
    "certify": [BOUNDS],
    "network": [FORMS, BOUNDS],
    "spectrum": [SPECTRA],
    "krylov": [SPECTRA, RUNS],
    "critical": [VERDICTS],
    "optimize": [RUNS, VERDICTS],
    "linalg": [SPECTRA, VERDICTS],
    "structure": ["tests/structure/test_golden.py"],
    "estimators": ["tests/applications/estimators/test_golden.py"],
    "cli": ["tests/applications/cli/test_golden.py", DEFAULTS],
}


class MutantTester:
    """A runner of tests in a mutated copy of the checkout, with a cache of the tests that fail
    without a mutant.
    """

    def __init__(self, folder: Path, covering: Covering | None, seconds: float) -> None:
        self.folder, self.covering, self.seconds = folder, covering, seconds
        self.alone: dict[str, bool] = {}  # True if the test passes without a mutant
        self.killers: dict[str, list[str]] = defaultdict(list)
        self.judge = subprocess.Popen(
            [sys.executable, "-m", "tests.tools.judge", f"--basetemp={folder / 'build' / 'tmp'}"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.known = self.answer()

    def answer(self) -> Any:
        assert self.judge.stdout is not None
        line = self.judge.stdout.readline()
        if not line:
            raise SystemExit(f"the judge ended with {self.judge.wait()}")
        return json.loads(line)

    def tests_of(self, file: str, change: Change) -> list[str]:
        """Return the names of the tests that run the changed line, or else its function, its file
        or its subpackage, in the order in which the tests run.
        """
        first = FIRST.get(subpackage_of(file), [])
        found: list[str] = []
        if self.covering is not None:
            found = self.covering.tests(f"fastcurv/{file}", change.lines, change.function)
            found = [test for test in found if test in self.known]
            those = set(self.covering.tests(f"fastcurv/{file}", range(1, 10**6), range(0)))
            those |= set(self.known).difference(self.covering.all)
            first = [test for name in first for test in self.of_place(name) if test in those]
        first = [*[*reversed(self.killers[file])][:N_TESTS_REPEATED], *first]
        if change.lines.start < change.function.start:  # a default, evaluated at import
            first.insert(0, DEFAULTS)
        if not found:
            found = TESTS.get(
                subpackage_of(file), [subpackage_of(file), f"test_{subpackage_of(file)}.py"]
            )
            found = [f"tests/{name}" for name in found]
        return [test for name in [*first, *found] for test in self.of_place(name)]

    def of_place(self, name: str) -> list[str]:
        """Return the names of the tests in a folder or file, or of the test with that name."""
        return [
            test
            for test in self.known
            if test == name or test.startswith((name + "/", name + "::"))
        ]

    def killer(self, file: str, number: int, change: Change) -> str | None:
        """Return the name of the first test that fails with the mutant and passes without, or None.
        If the mutant cannot be imported or hangs, return a text that states so.
        """
        tests = self.tests_of(file, change)
        target = self.folder / "fastcurv" / file
        asked = {"file": file, "number": number, "tests": tests, "seconds": self.seconds}
        assert self.judge.stdin is not None
        print(json.dumps(asked), file=self.judge.stdin, flush=True)
        said = self.answer()
        found = said["killer"] if said["swapped"] else self.imported(target, change, tests)
        test = (found or "").split("[")[0]
        if test in self.known:
            self.killers[file] = [t for t in self.killers[file] if t != test] + [test]
        return found

    def imported(self, target: Path, change: Change, tests: list[str]) -> str | None:
        """Return the result of `killer` for a change of code that runs at import, in processes that
        import all modules again.
        """
        text, stat = target.read_text(), target.stat()
        left = list(dict.fromkeys(tests))[:MAX_IMPORT_TESTS]
        while left:
            target.write_text(ast.unparse(change.tree))
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
    """Return (lower, upper), Wilson's 95% interval of the fraction of killed mutants, in
    percent.
    """
    if not count:
        return 0.0, 100.0
    z, share = 1.96, killed / count
    middle = share + z * z / (2 * count)
    width = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    scale = 100 / (1 + z * z / count)
    return scale * (middle - width), scale * (middle + width)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--subpackage", nargs="*", default=[], choices=SUBPACKAGES)
    parser.add_argument("--file", nargs="*", default=[], help="how the names of files end")
    parser.add_argument("--only", nargs="*", default=[], help="as printed: file#number")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutate")
    parser.add_argument("--covered", type=Path, default=ROOT / "build" / "coverage" / ".coverage")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no more after them")
    parser.add_argument("--first", type=int, default=0, help="how many of the drawn are passed by")
    return parser.parse_args()


def main() -> int:
    asked = arguments()
    asked.folder = asked.folder.resolve()
    copy_checkout(asked.folder)
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(build, cwd=asked.folder, check=True)
    covering = Covering(asked.covered) if asked.covered.exists() else None
    noticing = MutantTester(asked.folder, covering, asked.seconds)
    subpackages = set(asked.subpackage or SUBPACKAGES)
    package = asked.folder / "fastcurv"
    chosen = drawn(package, asked.count, asked.seed, subpackages, tuple(asked.file))[asked.first :]
    if asked.only:
        chosen = [(name.split("#")[0], int(name.split("#")[1])) for name in asked.only]
    killed, done, end = 0, 0, time.monotonic() + 60 * asked.minutes
    for done, (file, number) in enumerate(chosen, 1):
        begin = time.time()
        change = applied((package / file).read_text(), number, file)
        killer = noticing.killer(file, number, change)
        killed += killer is not None
        where = f"fastcurv/{file}:{change.lines.start} ({file}#{number})"
        said = "LIVES " if killer is None else "killed"
        print(
            f"{said} {time.time() - begin:3.0f} s {where}: {change.before[:60]}  ->  "
            f"{change.after[:60]}  [{killed}/{done}] {killer or ''}",
            flush=True,
        )
        if time.monotonic() > end:
            break
    low, high = interval(killed, done)
    share = 100 * killed / max(1, done)
    print(f"{killed} of {done} killed, {share:.0f}% (95% interval {low:.0f} to {high:.0f})")
    return share < MIN_DETECTED_PERCENT


if __name__ == "__main__":
    raise SystemExit(main())
