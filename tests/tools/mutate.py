"""Random mutants of the Python layer, and the share that the tests detect.

    python -m tests.tools.mutate [--count 100] [--seed 0] [--subpackage spectrum ...]
        [--file run.py ...]
    python -m tests.tools.mutate --only optimize/run.py#62 ...

`mutations` lists the kinds of changes. In a copy of the checkout, the golden tests of the mutated
subpackage and then the tests that run the mutated line, as found by `make coverage`, run in a new
process until one fails or `--seconds` of processor time are used. Without coverage data, the tests
of the subpackage run. A mutant survives if no test fails within that time. A test that also fails
without the mutant does not count. Surviving mutants are printed with their line. The exit status is
1 if fewer than 85% are detected.
"""

from __future__ import annotations

import argparse
import ast
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .covering import Covering
from .mutants import ROOT, copy_checkout
from .mutations import Change, applied, drawn, subpackage_of

MIN_DETECTED_PERCENT = 85.0
MAX_TEST_SECONDS = 60  # processor time of one test, above which a mutant hangs


class TimeLimit:
    """A pytest plugin that writes the name of each test that begins or fails to a file, stops the
    session when its processor time is used up, and ends the process if a test hangs.
    """

    def __init__(self, seconds: float, log: Path) -> None:
        self.log = log
        self.end = time.process_time() + seconds

    def pytest_runtest_protocol(self, item: Any) -> None:
        limit = int(time.process_time()) + 1 + MAX_TEST_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        self.log.write_text(item.nodeid)
        if time.process_time() > self.end:
            item.session.shouldstop = "the time is used up"


def first_failure(folder: Path, tests: list[str], seconds: float) -> str | None:
    """Return the name of the first of the tests that fails or hangs, "import" if the package or the
    tests cannot be imported, or None if all pass within `seconds` of processor time.
    """
    log = folder / "build" / "test-that-runs"
    log.write_text("import")
    command = [sys.executable, "-m", "tests.tools.mutate", "--run", str(seconds), str(log), *tests]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=20 * seconds + 600)
    except subprocess.TimeoutExpired:
        return log.read_text()
    return None if done.returncode in (0, 5) else log.read_text()


def tests_of(covering: Covering | None, folder: Path, file: str, change: Change) -> list[str]:
    """Return the golden tests of the file's subpackage and the tests that run the changed line, or
    else all tests of the subpackage, or of the core for a file in no subpackage.
    """
    subpackage = subpackage_of(file)
    places = [f"tests/{subpackage}", f"tests/applications/{subpackage}"]
    places = [place for place in places if (folder / place).is_dir()]
    golden = [f"{place}/test_golden.py" for place in places]
    golden = [name for name in golden if (folder / name).exists()]
    if covering is None:
        return [*golden, *(places or ["tests/spectrum", "tests/network"])]
    return [*golden, *covering.tests(f"fastcurv/{file}", change.lines, change.function)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--subpackage", nargs="*", default=[])
    parser.add_argument("--file", nargs="*", default=[], help="how the names of files end")
    parser.add_argument("--only", nargs="*", default=[], help="as printed: file#number")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutate")
    parser.add_argument("--covered", type=Path, default=ROOT / "build" / "coverage" / ".coverage")
    parser.add_argument("--seconds", type=float, default=60.0)
    return parser.parse_args()


def main() -> int:
    if sys.argv[1:2] == ["--run"]:  # a call of `first_failure`
        seconds, log, *tests = sys.argv[2:]
        words = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
        return int(pytest.main(words, plugins=[TimeLimit(float(seconds), Path(log))]))
    options = arguments()
    folder = options.folder.resolve()
    copy_checkout(folder)
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(build, cwd=folder, check=True)
    covering = Covering(options.covered) if options.covered.exists() else None
    package = folder / "fastcurv"
    chosen = drawn(
        package, options.count, options.seed, set(options.subpackage), tuple(options.file)
    )
    if options.only:
        chosen = [(name.split("#")[0], int(name.split("#")[1])) for name in options.only]
    n_killed = 0
    for n_done, (file, number) in enumerate(chosen, 1):
        text = (package / file).read_text()
        change = applied(text, number, file)
        tests = tests_of(covering, folder, file, change)
        killer: str | None = None
        while tests:
            (package / file).write_text(ast.unparse(change.tree))
            try:
                killer = first_failure(folder, tests, options.seconds)
            finally:
                (package / file).write_text(text)
            if killer is None or killer == "import":
                break
            if first_failure(folder, [killer], options.seconds) is None:
                break
            print(f"  {killer} fails without a mutant", flush=True)
            tests = [f"--deselect={killer}", *tests]
            killer = None
        n_killed += killer is not None
        print(
            f"{'LIVES ' if killer is None else 'killed'} {file}:{change.lines.start} "
            f"({file}#{number}): {change.before[:60]}  ->  {change.after[:60]}  "
            f"[{n_killed}/{n_done}] {killer or ''}",
            flush=True,
        )
    percent = 100 * n_killed / max(1, len(chosen))
    print(f"{n_killed} of {len(chosen)} killed, {percent:.0f}%")
    return percent < MIN_DETECTED_PERCENT


if __name__ == "__main__":
    raise SystemExit(main())
