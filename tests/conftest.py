"""What the tests share: a generator that varies, every kernel table of this CPU, both precisions, a
fresh interpreter.
"""

import gc
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
    """Mark as nightly what `by_day` leaves out: of cases that differ only in the parameter
    `one_of`, all but one; then of each function's cases all but a `share`, rounded up. Which ones
    are kept follows from their names, so every run keeps the same.
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


def pytest_collection_finish():
    """What stays to the end, thousands of tests among it, is no longer looked at for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def rng(request):
    """A generator of its own for every test: the same in every run, and never the same in two
    tests.
    """
    name = request.node.nodeid
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    draws = generator.standard_normal((2, 4))
    assert not np.array_equal(*draws), "the generator repeats itself"
    assert _first_draws.setdefault(draws.tobytes(), name) == name, "two tests draw the same numbers"
    return generator


@pytest.fixture(autouse=True)
def no_figures_left_open():
    """Close the figures of pyplot that a test leaves, of which it warns at the twentieth."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def samples_as_rows():
    """Plans made while the test runs keep samples as rows, however narrow the net."""
    with laid_out(across=0):
        yield


@pytest.fixture(params=nets.kernel_tables())
def arch(request):
    """Each table of kernels in turn, in force while the test runs."""
    before = engine.set_arch(request.param)
    yield request.param
    engine.set_arch(before)


@pytest.fixture
def kernels():
    """The function that puts a table of kernels in force until the test ends."""
    before = engine.chosen_arch()
    yield engine.set_arch
    engine.set_arch(before)


@pytest.fixture(params=nets.DTYPES)
def dtype(request):
    """The name of each precision in turn."""
    return request.param


@pytest.fixture(scope="session")
def problem():
    """`nets.draw` for tests that cannot import it."""
    return nets.draw


@pytest.fixture(
    params=["process_time", pytest.param("perf_counter", marks=pytest.mark.nightly)],
    ids=["processor", "clock"],
)
def clock(request):
    """The name in `time` of what limits of time are held against: beside other work the processor's
    time of the process and its threads, where nothing else runs the clock's.
    """
    return request.param


@pytest.fixture(params=[True, pytest.param(False, marks=pytest.mark.nightly)], ids=["", "seconds"])
def ticks(request, monkeypatch):
    """Replace `time.perf_counter` by a clock that advances by a millisecond whenever it is read, so
    that limits of time end after a number of readings and not after what a machine needs; nightly
    leave the clock itself. Return the seconds by which a limit may be passed.
    """
    readings = itertools.count()
    if request.param:
        monkeypatch.setattr(time, "perf_counter", lambda: 1e-3 * next(readings))
    return 0.02 if request.param else 0.3


@pytest.fixture(scope="session")
def python():
    """Run a program in a fresh interpreter: its CompletedProcess.

    A hang is a failed test, after so long that no other work on the machine passes for one, and so
    is a crash that is not asked for.
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
