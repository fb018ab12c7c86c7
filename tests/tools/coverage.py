"""Measure which lines of C (by gcov) and branches of Python (by coverage.py) the test suite runs.

    python -m tests.tools.coverage [--more] [arguments of pytest ...]

The suite runs in a copy of the checkout, `build/coverage`, whose C code is compiled with counters.
Subprocesses are counted. The data also record which test ran each line, for `mutate`. With
`--more`, counts are added to those of earlier runs. The exit status is 1 if a test fails, or if too
few lines of C or branches of Python ran: fewer than 96% by day, or fewer than 97% if `-m` selects
the nightly tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict

from .mutants import ROOT, copy_checkout

FOLDER = ROOT / "build" / "coverage"
BY_DAY, BY_NIGHT = 96.0, 97.0  # percent
# Tests that fail under coverage.py, by words of their names. A signal inside coverage.py leaves a
# lock taken, so that the next line hangs. Recorded lines count as memory of a product. Code with
# counters exceeds the limits of wall time of nightly cases, takes ten minutes for the wide network
# of the tests of Ctrl-C, and is no faster for a sample of a batch than for a single sample.
SKIPPED_TESTS = " or ".join(
    [
        "interrupts_between_chunks",
        "handlers_that_call_a_busy_object",
        "products_allocate_only",
        "(ctrl_c_ends_calls_promptly and (clock or wide))",
        "(max_time_includes_the_final_checks and seconds)",
        "(heading and batch_size)",
    ]
)
CONFIG = """
[run]
branch = True
source_pkgs = fastcurv
parallel = True
patch = subprocess
sigterm = True
dynamic_context = test_function
disable_warnings = module-not-measured, no-data-collected, module-not-imported
data_file = {folder}/.coverage
[report]
# without the copies of the package that tests make in temporary folders
include = {folder}/fastcurv/*
skip_empty = True
exclude_also =
    if TYPE_CHECKING:
    ^\\s*\\.\\.\\.$
    : \\.\\.\\.$
    @overload
"""


def build(more: bool) -> None:
    copy_checkout(FOLDER)
    if not more:
        for old in [*FOLDER.rglob("*.gcda"), *FOLDER.glob(".coverage*")]:
            old.unlink()
    (FOLDER / "coveragerc").write_text(CONFIG.format(folder=FOLDER))
    environment = os.environ | {"FASTCURV_COVERAGE": "1"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=FOLDER, env=environment, check=True)


def measure(arguments: list[str]) -> bool:
    """Run the suite under coverage with the given arguments of pytest, and return True if it
    passed.
    """
    rc = str(FOLDER / "coveragerc")
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={rc}", "-m", "pytest", "-q"]
    environment = os.environ | {"COVERAGE_RCFILE": rc, "PYTHONPATH": str(FOLDER)}
    arguments = ["-k", f"not ({SKIPPED_TESTS})", *arguments]
    return not subprocess.run([*command, *arguments], cwd=FOLDER, env=environment).returncode


def lines_of_c() -> tuple[int, int, dict[str, list[int]]]:
    """Return (n_lines, n_run, missed) for the lines of C with code, where `missed` lists by file
    the lines that did not run. A line compiled for several instruction sets counts once.
    """
    counts: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for data in sorted((FOLDER / "build").rglob("*.gcda")):
        if "src" not in data.relative_to(FOLDER).parts:
            continue
        said = subprocess.run(
            ["gcov", "--json-format", "--stdout", str(data)],
            cwd=FOLDER,
            capture_output=True,
            check=True,
        ).stdout
        for line in said.splitlines():
            for file in json.loads(line)["files"]:
                if file["file"].startswith("src/"):
                    for place in file["lines"]:
                        counts[file["file"]][place["line_number"]] += place["count"]
    missed = {f: sorted(n for n, c in at.items() if not c) for f, at in sorted(counts.items())}
    every = sum(len(at) for at in counts.values())
    return every, every - sum(map(len, missed.values())), missed


def branches_of_python() -> tuple[int, int]:
    """Return (n_branches, n_taken) for the Python code, and print the files with missed
    branches.
    """
    tool = [sys.executable, "-m", "coverage"]
    rc = f"--rcfile={FOLDER / 'coveragerc'}"
    subprocess.run([*tool, "combine", "-q", "--append", rc], cwd=FOLDER, check=False)
    subprocess.run([*tool, "report", rc, "--show-missing", "--skip-covered"], cwd=FOLDER)
    subprocess.run([*tool, "json", "-q", rc, "-o", "coverage.json"], cwd=FOLDER, check=True)
    totals = json.loads((FOLDER / "coverage.json").read_text())["totals"]
    return totals["num_branches"], totals["covered_branches"]


def main() -> int:
    arguments = sys.argv[1:]
    more = "--more" in arguments
    build(more)
    passed = measure([word for word in arguments if word != "--more"])
    branches, taken = branches_of_python()
    lines, ran, missed = lines_of_c()
    for file, numbers in missed.items():
        if numbers:
            print(f"{file}: not run: {', '.join(map(str, numbers))}")
    c, python = 100 * ran / lines, 100 * taken / branches
    print(
        f"C: {ran} of {lines} lines, {c:.1f}%; Python: {taken} of {branches} branches, "
        f"{python:.1f}%"
    )
    wanted = BY_NIGHT if "-m" in arguments else BY_DAY
    return not (passed and c >= wanted and python >= wanted)


if __name__ == "__main__":
    raise SystemExit(main())
