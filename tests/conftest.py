"""Fixtures that the tests share: a random generator, every kernel table of this CPU, both
precisions, and a fresh interpreter."""

import contextlib
import gc
import importlib
import itertools
import math
import os
import signal
import subprocess
import sys
import time
import zlib

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # a second pool that spins beside ours slows both; must stand before NumPy

import numpy as np
import pytest

from fastcurv import _engine as engine

from . import nets
from .plans import laid_out

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for what a shell runs behind itself
    signal.signal(signal.SIGINT, signal.default_int_handler)

_first_draws = {}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark as nightly the cases that `by_day` leaves out.

    Of cases that differ only in the parameter `one_of`, all but one are left out, and of each
    function's remaining cases all but a `share`, rounded up. The choice follows from names, so it
    is the same in every run.
    """
    by_day, shares = {}, {}
    for item in items:
        if item.get_closest_marker("nightly") or item.get_closest_marker("large"):
            continue
        function, group = item.nodeid.partition("[")[0], item.nodeid
        params = item.callspec.params if hasattr(item, "callspec") else {}
        for marker in item.iter_markers("by_day"):
            name, share = marker.kwargs.get("one_of"), marker.kwargs.get("share", 1.0)
            shares.setdefault(function, share)  # the function's own marker comes first
            if name in params:  # a group has the name of its cases without this parameter
                group = group.replace(str(params[name]), "")
        by_day.setdefault(function, {}).setdefault(group, []).append(item)
    for function, groups in by_day.items():
        kept = [group[zlib.crc32(name.encode()) % len(group)] for name, group in groups.items()]
        kept.sort(key=lambda item: zlib.crc32(item.nodeid.encode()))
        kept = set(kept[: math.ceil(shares.get(function, 1.0) * len(kept))])
        for item in itertools.chain(*groups.values()):
            if item not in kept:
                item.add_marker(pytest.mark.nightly)


def pytest_collection(session):
    """Import the test modules in a different order in each worker.

    pytest rewrites the asserts of each module that has no up-to-date bytecode, which takes ten
    seconds for all modules. If workers begin at different modules, each rewrites only a part.
    """
    worker = getattr(session.config, "workerinput", None)
    if not worker or sys.dont_write_bytecode:
        return
    paths = sorted(session.config.rootpath.glob("tests/**/test_*.py"))
    number, count = int(worker["workerid"][2:]), worker["workercount"]
    first = len(paths) * number // count
    for path in paths[first:] + paths[:first]:
        name = ".".join(path.relative_to(session.config.rootpath).with_suffix("").parts)
        with contextlib.suppress(Exception, pytest.skip.Exception):  # collection reports them
            importlib.import_module(name)


def pytest_collection_finish():
    """Exempt the collected tests from garbage collection, since they stay until the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def rng(request):
    """Return a generator seeded by the name of the test: the same in every run, and different for
    every test.
    """
    name = request.node.nodeid
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    draws = generator.standard_normal((2, 4))
    assert not np.array_equal(*draws), "the generator repeats itself"
    assert _first_draws.setdefault(draws.tobytes(), name) == name, "two tests draw the same numbers"
    return generator


@pytest.fixture(autouse=True)
def no_figures_left_open():
    """Close figures of pyplot that a test leaves open, since pyplot warns at the twentieth."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def samples_as_rows():
    """Use the layout with samples as rows in plans made during the test, even for narrow
    networks.
    """
    with laid_out(across=0):
        yield


@pytest.fixture(params=nets.kernel_tables())
def arch(request):
    """Run the test with each table of kernels in turn."""
    before = engine.set_arch(request.param)
    yield request.param
    engine.set_arch(before)


@pytest.fixture
def kernels():
    """Return a function that selects a table of kernels until the test ends."""
    before = engine.chosen_arch()
    yield engine.set_arch
    engine.set_arch(before)


@pytest.fixture(params=nets.DTYPES)
def dtype(request):
    """Return the name of each precision in turn."""
    return request.param


@pytest.fixture(scope="session")
def problem():
    """Return `nets.draw`, for tests that cannot import it."""
    return nets.draw


@pytest.fixture(
    params=["process_time", pytest.param("perf_counter", marks=pytest.mark.nightly)],
    ids=["processor", "clock"],
)
def clock(request):
    """Return the name of the function of `time` that measures time limits: processor time by day,
    wall time nightly.
    """
    return request.param


@pytest.fixture(params=[True, pytest.param(False, marks=pytest.mark.nightly)], ids=["", "seconds"])
def ticks(request, monkeypatch):
    """Replace `time.perf_counter` by a clock that advances by a millisecond at each reading, and
    return the allowed excess in seconds. Time limits then end after the same number of readings on
    every machine. Nightly runs use the real clock and a larger excess.
    """
    readings = itertools.count()
    if request.param:
        monkeypatch.setattr(time, "perf_counter", lambda: 1e-3 * next(readings))
    return 0.02 if request.param else 0.3


@pytest.fixture(scope="session")
def python():
    """Return a function that runs a program in a new interpreter and returns its CompletedProcess.
    A crash that is not expected fails the test, and so does a hang, after a limit so long that load
    on the machine does not reach it.
    """

    def run(code, *, timeout=1200, environment=None, check=True):
        env = {
            name: value for name, value in os.environ.items() if not name.startswith("FASTCURV_")
        } | (environment or {})
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, env=env
        )
        if check:
            assert done.returncode == 0, (
                f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    return run
