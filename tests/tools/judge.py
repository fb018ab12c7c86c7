"""Collect the suite once, and run the tests of each mutant in children of this process.

    python -m tests.tools.judge [arguments of pytest ...]

A child replaces the code of existing functions by mutated code, so a mutant takes only the time of
its tests. Code that runs at import is not mutated. Each line of standard input is a JSON object
with a file, a mutation, tests and a time limit. Each line of standard output is the result of
`Judge.verdict`.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import json
import os
import resource
import select
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from .mutations import applied

TEST_SECONDS = 30  # limit of processor time for a test whose duration is unknown
MAX_SLOWDOWN = 10  # ratio to a test's duration without a mutant, above which the test hangs
MAX_IDLE_SECONDS = 60  # wall time without processor time, above which a test hangs
MAX_EXTRA_BYTES = 8 << 30  # limit of a mutant's memory in addition to this process's


def codes(code: CodeType) -> list[CodeType]:
    """Return a list of a code object and all code objects nested in it, in order."""
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    return [code, *(c for part in inner for c in codes(part))]


def processor_seconds() -> float:
    """Return the seconds of processor time that this process and its finished children have
    used.
    """
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def read_child(pipe: int, worker: int) -> list[str]:
    """Return the lines that a child process writes to `pipe`, until it ends or is killed after
    MAX_IDLE_SECONDS without processor time.
    """
    said, silent, used = b"", 0, 0
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        while silent < MAX_IDLE_SECONDS:
            if select.select([pipe], [], [], 1.0)[0]:
                part = os.read(pipe, 1 << 16)
                if not part:
                    break
                said, silent = said + part, 0
                continue
            now = sum(map(int, Path(f"/proc/{worker}/stat").read_text().split()[13:17]))
            silent, used = (0, now) if now > used else (silent + 1, used)
        else:
            os.kill(worker, signal.SIGKILL)
    os.close(pipe)
    return said.decode().splitlines()


class Judge:
    """A pytest plugin that runs the requested mutants in place of the test session."""

    def __init__(self, questions: Any, answers: Any) -> None:
        self.questions, self.answers = questions, answers
        self.items: dict[str, list[Any]] = defaultdict(list)  # cases by test function
        self.took: dict[str, float] = {}
        self.sound: dict[str, bool] = {}  # True if the test passes without a mutant
        self.failed = False
        self.pipe = -1

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.failed |= report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: Any) -> bool:
        for item in session.items:
            self.items[item.nodeid.split("[")[0]].append(item)
        self.functions: dict[str, list[FunctionType]] = defaultdict(list)
        self.caches = []
        for thing in gc.get_objects():
            if isinstance(thing, FunctionType):
                self.functions[thing.__code__.co_filename].append(thing)
            elif isinstance(thing, functools._lru_cache_wrapper):
                self.caches += [thing] if thing.__module__.startswith("fastcurv") else []
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        gc.collect()
        gc.freeze()
        print(json.dumps(sorted(self.items)), file=self.answers, flush=True)
        for line in self.questions:
            print(json.dumps(self.verdict(**json.loads(line))), file=self.answers, flush=True)
        return True

    def ordered(self, tests: list[str]) -> list[Any]:
        """Return the cases of the tests in three rounds. The first has all golden cases, which
        detect the most in the least time, and one case of each test. The second has a few more
        cases, and the third has the rest.
        """
        rounds: list[list[Any]] = [[], [], []]
        for name in dict.fromkeys(tests):
            cases = self.items.get(name, [])
            if name.split("::")[0].endswith("test_golden.py"):
                rounds[0] += cases
                continue
            step = max(1, len(cases) // 4)
            few = cases[::step]
            rounds[0] += few[:1]
            rounds[1] += few[1:]
            rounds[2] += [case for i, case in enumerate(cases) if i % step]
        return [case for part in rounds for case in part]

    def verdict(
        self, file: str, number: int, tests: list[str], seconds: float
    ) -> dict[str, str | float | None]:
        """Return a dict with the keys "killer" (the first test that fails with the mutant and
        passes without, or None), "swapped" (False if code outside functions changes), "seconds",
        and "ran" (the number of tests).
        """
        path, begin = Path.cwd() / "fastcurv" / file, time.monotonic()
        text, stat = path.read_text(), path.stat()
        change = applied(text, number, file)
        instead = self.replacing(text, change.tree, str(path))
        if instead is None:
            return {"killer": None, "swapped": False, "seconds": 0.0, "ran": 0}
        left, ran, killer = self.ordered(tests), 0, None
        while left:
            path.write_text(ast.unparse(change.tree))  # for processes started by tests
            try:
                done, failed = self.run(left, instead, seconds)
            finally:
                path.write_text(text)
                os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            ran += len(done)
            seconds -= sum(done.values())
            self.took = done | self.took
            if failed is None:
                break
            if self.alone(failed):
                killer = failed.nodeid
                break
            left = left[left.index(failed) + 1 :]
        spent = time.monotonic() - begin
        return {"killer": killer, "swapped": True, "seconds": spent, "ran": ran}

    def alone(self, item: Any) -> bool:
        """Return True if the test passes without any mutant. The result is computed once for each
        test.
        """
        if item.nodeid not in self.sound:
            done, failed = self.run([item], {}, TEST_SECONDS)
            self.sound[item.nodeid] = failed is None
            self.took |= done
        return self.sound[item.nodeid]

    def replacing(
        self, text: str, tree: ast.Module, file: str
    ) -> dict[FunctionType, CodeType] | None:
        """Return a dict from the functions of a file to their mutated code, for functions whose
        code differs, or None if only other code differs.
        """
        before = codes(compile(text, file, "exec", dont_inherit=True))
        after = codes(compile(tree, file, "exec", dont_inherit=True))
        if len(before) != len(after):
            return None
        # A code object that contains a changed one also differs, so enclosing functions are found.
        new = {old: now for old, now in zip(before, after, strict=True) if old != now}
        found = {f: new[f.__code__] for f in self.functions[file] if f.__code__ in new}
        return found or None

    def run(
        self, items: list[Any], instead: dict[FunctionType, CodeType], seconds: float
    ) -> tuple[dict[str, float], Any]:
        """Run tests in a child process with the code of functions replaced. Return (seconds,
        failed): the time of each test that passed, by name, and the test that failed, or None.
        """
        reading, writing = os.pipe()
        worker = os.fork()
        if not worker:
            try:
                os.setpgid(0, 0)
                os.close(reading)
                self.child(items, instead, seconds, writing)
            finally:
                os._exit(0)
        os.close(writing)
        said = [line.split() for line in read_child(reading, worker)]
        os.waitpid(worker, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker, signal.SIGKILL)  # remaining child processes
        done = {items[int(i)].nodeid: float(took) for i, took, passed in said if passed == "1"}
        if said and said[-1][0] == "end":
            return done, None
        ended = [(int(i), passed) for i, _, passed in said]
        if ended and ended[-1][1] == "0":
            return done, items[ended[-1][0]]
        return done, items[len(ended)] if len(ended) < len(items) else None

    def child(
        self, items: list[Any], instead: dict[FunctionType, CodeType], seconds: float, pipe: int
    ) -> None:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MAX_EXTRA_BYTES, resource.RLIM_INFINITY))
        for function, code in instead.items():
            function.__code__ = code
        for cache in self.caches:
            cache.cache_clear()
        end = processor_seconds() + seconds
        for i, (item, following) in enumerate(zip(items, [*items[1:], None], strict=True)):
            begin = processor_seconds()
            known = self.took.get(item.nodeid)
            limit = TEST_SECONDS if known is None else int(MAX_SLOWDOWN * known) + 3
            resource.setrlimit(
                resource.RLIMIT_CPU, (int(time.process_time()) + 1 + limit, resource.RLIM_INFINITY)
            )
            self.failed = False
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            os.write(
                pipe, f"{i} {processor_seconds() - begin:.4f} {int(not self.failed)}\n".encode()
            )
            if self.failed:
                return
            if processor_seconds() > end:
                break
        os.write(pipe, b"end 0 0\n")


def main() -> int:
    questions, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nothing, stream)
    words = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:faulthandler",
        "--continue-on-collection-errors",
    ]
    return int(pytest.main([*words, *sys.argv[1:]], plugins=[Judge(questions, answers)]))


if __name__ == "__main__":
    raise SystemExit(main())
