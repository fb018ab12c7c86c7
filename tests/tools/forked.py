"""Run tests in a child of this process, which has imported slow packages but no module of the
repository.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

IMPORT = "the package cannot be imported"
HANGS = "a test hangs"
TEST_SECONDS = 60  # limit of processor time for one test, above which a mutant hangs
HEAVY = ("scipy.linalg", "scipy.sparse.linalg", "scipy.optimize", "hypothesis", "sklearn.base")


class FailureReporter:
    """A pytest plugin that writes the names of failed tests to a pipe, and stops the session when
    its processor time is used up.
    """

    def __init__(self, pipe: int, seconds: float) -> None:
        self.pipe, self.end = pipe, time.process_time() + seconds

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            os.write(self.pipe, f"{report.nodeid}\n".encode())

    pytest_collectreport = pytest_runtest_logreport

    def pytest_runtest_protocol(self, item: Any) -> None:
        used = int(time.process_time()) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (used + TEST_SECONDS, resource.RLIM_INFINITY))
        signal.alarm(10 * TEST_SECONDS)  # wall time, for tests that wait
        if time.process_time() > self.end:
            item.session.shouldstop = "the time is spent"


def run_in_child(folder: Path, tests: list[str], seconds: float, pipe: int) -> int:
    """Run the tests in this child process, and return pytest's exit status, or 1 if fastcurv cannot
    be imported. Failed tests are written to `pipe`.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "fastcurv")]:
        del sys.modules[name]
    try:
        importlib.import_module("fastcurv.network.objective")
    except BaseException:
        os.write(pipe, IMPORT.encode())
        return 1
    words = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    return int(pytest.main(words, plugins=[FailureReporter(pipe, seconds)]))


def first_failure(folder: Path, tests: list[str], seconds: float) -> str | None:
    """Return the name of the first of the tests that fails, IMPORT or HANGS, or None if all pass
    within `seconds` of processor time.
    """
    for name in HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    reading, writing = os.pipe()
    worker = os.fork()
    if not worker:
        status = 70
        try:
            os.setpgid(0, 0)
            os.close(reading)
            status = run_in_child(folder, tests, seconds, writing)
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker, signal.SIGKILL)  # remaining child processes
    if status in (0, 1, 2, 5) or status == 4 and said:  # 4: a test file cannot be imported
        return said.split("\n")[0] or None
    if status < 0:
        return said.split("\n")[0] or HANGS
    if status == 4:  # pytest collected no test
        return tests[0]
    raise RuntimeError(f"pytest ended with {status} on {tests[:3]}: {said}")
