"""Fixtures that the tests share: a random generator, every kernel table of this CPU, both
precisions, and a new interpreter.
"""

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
)  # a second pool of spinning threads slows both; NumPy reads this when it is imported

import numpy as np
import pytest

from fastcurv import _engine as engine

from . import nets
from .plans import laid_out

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # set for background jobs of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)

_first_draws = {}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark as nightly the cases that `by_day` leaves out.

    Of cases that differ only in the parameter `one_of`, all but one are left out. Of each
    function's remaining cases, a fraction `share`, rounded up, is kept. The choice depends on names
    only, and is therefore the same in every run.
    """
    by_day, shares = {}, {}
    for item in items:
        if item.get_closest_marker("nightly") or item.get_closest_marker("large"):
            continue
        function, group = item.nodeid.partition("[")[0], item.nodeid
        params = item.callspec.params if hasattr(item, "callspec") else {}
        for marker in item.iter_markers("by_day"):
            name, share = marker.kwargs.get("one_of"), marker.kwargs.get("share", 1.0)
            shares.setdefault(function, share)  # the first marker is the function's own
            if name in params:  # the group's name is that of its cases without this parameter
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
    seconds for all modules. If workers begin at different modules, each worker rewrites only a
    part.
    """
    worker = getattr(session.config, "workerinput", None)
    if not worker or sys.dont_write_bytecode:
        return
    paths = sorted(session.config.rootpath.glob("tests/**/test_*.py"))
    number, count = int(worker["workerid"][2:]), worker["workercount"]
    first = len(paths) * number // count
    for path in paths[first:] + paths[:first]:
        name = ".".join(path.relative_to(session.config.rootpath).with_suffix("").parts)
        with contextlib.suppress(Exception, pytest.skip.Exception):  # pytest reports these errors
            importlib.import_module(name)


def pytest_collection_finish():
    """Exempt the collected tests from garbage collection, because tests exist until the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def rng(request):
    """Return a generator seeded by the name of the test, so that each test draws its own numbers
    and draws them again in every run.
    """
    name = request.node.nodeid
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    draws = generator.standard_normal((2, 4))
    assert not np.array_equal(*draws), "the generator repeats itself"
    assert _first_draws.setdefault(draws.tobytes(), name) == name, "two tests draw the same numbers"
    return generator


@pytest.fixture(autouse=True)
def no_figures_left_open():
    """Close figures of pyplot that a test leaves open, because pyplot warns at the twentieth."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def samples_as_rows():
    """Use the layout with samples as rows in plans that the test creates, even for narrow
    networks.
    """
    with laid_out(across=0):
        yield


@pytest.fixture(params=nets.kernel_tables())
def arch(request):
    """Select each kernel table in turn, and return its name."""
    before = engine.set_arch(request.param)
    yield request.param
    engine.set_arch(before)


@pytest.fixture
def kernels():
    """Return a function that selects a kernel table by name until the test ends."""
    before = engine.chosen_arch()
    yield engine.set_arch
    engine.set_arch(before)


@pytest.fixture(params=nets.DTYPES)
def dtype(request):
    """Return the name of each precision in turn: "float32" and "float64"."""
    return request.param


@pytest.fixture(scope="session")
def problem():
    """Return `nets.draw`, for tests that cannot import this function."""
    return nets.draw


@pytest.fixture(
    params=["process_time", pytest.param("perf_counter", marks=pytest.mark.nightly)],
    ids=["processor", "clock"],
)
def clock(request):
    """Return the name of the function of `time` with which time limits are measured: processor time
    by day, and wall time nightly.
    """
    return request.param


@pytest.fixture(params=[True, pytest.param(False, marks=pytest.mark.nightly)], ids=["", "seconds"])
def ticks(request, monkeypatch):
    """Replace `time.perf_counter` by a clock that advances by a millisecond at each reading, and
    return the seconds by which a limit may be exceeded. Time limits then end after the same number
    of readings on every machine. Nightly runs use the real clock and allow a larger excess.
    """
    readings = itertools.count()
    if request.param:
        monkeypatch.setattr(time, "perf_counter", lambda: 1e-3 * next(readings))
    return 0.02 if request.param else 0.3


@pytest.fixture(scope="session")
def python():
    """Return a function that runs code in a new interpreter and returns its CompletedProcess. The
    test fails if the exit status is not 0, unless `check` is False, or if the code runs longer than
    `timeout` seconds, by default 20 minutes.
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
