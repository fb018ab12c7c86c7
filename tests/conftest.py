"""What the tests share: a generator that varies, every kernel table of this CPU, and a network with
its oracle.
"""

import gc
import os
import signal
import subprocess
import sys
import zlib
from types import SimpleNamespace

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # a second pool that spins beside ours slows both; must stand before NumPy

import numpy as np
import pytest

from fastcurv import MLP, Objective
from fastcurv import _engine as engine
from fastcurv.reference import ReferenceModel, ReferenceObjective

from .plans import laid_out

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for what a shell runs behind itself
    signal.signal(signal.SIGINT, signal.default_int_handler)

_first_draws = {}


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


@pytest.fixture
def samples_as_rows():
    """Plans made while the test runs keep samples as rows, however narrow the net."""
    with laid_out(across=0):
        yield


@pytest.fixture(params=engine.available_archs())
def arch(request):
    """Each table of kernels in turn, in force while the test runs."""
    before = engine.set_arch(request.param)
    yield request.param
    engine.set_arch(before)


def draw_problem(
    rng,
    sizes,
    activation="tanh",
    loss="mse",
    N=17,
    *,
    bias=True,
    residual=False,
    weights=False,
    l2=0.0,
    dtype="float64",
    soft=False,
    **options,
):
    """A random network on random data, and the oracle for it: every number fits the dtype, so both
    see the same ones.
    """
    model = MLP(sizes, activation, bias=bias, residual=residual, dtype=dtype)
    d_out = sizes[-1]
    X = rng.standard_normal((N, sizes[0])).astype(dtype)
    if loss == "cross_entropy":
        y = rng.integers(d_out, size=N)
        if soft:
            y = (rng.random((N, d_out)) / d_out).astype(dtype)
    elif loss == "binary_cross_entropy":
        y = rng.integers(2, size=(N, d_out)).astype(dtype)
    else:
        y = rng.standard_normal((N, d_out)).astype(dtype)
    weight = rng.uniform(0.25, 2, N).astype(dtype) if weights else None
    theta = np.concatenate(
        [
            np.r_[rng.standard_normal(m * k) / k**0.5, rng.standard_normal(m if bias else 0) / 2]
            for k, m in zip(sizes, sizes[1:])
        ]
    ).astype(dtype)
    ob = Objective(model, X, y, loss, l2=l2, sample_weight=weight, **options)
    names = activation if isinstance(activation, str) else list(activation)
    ref = ReferenceObjective(
        ReferenceModel(sizes, names, bias=bias, residual=residual),
        X,
        y,
        loss,
        l2=l2,
        sample_weight=weight,
    )
    return SimpleNamespace(
        model=model, ob=ob, ref=ref, theta=theta, X=X, y=y, weight=weight, n=model.n_params
    )


@pytest.fixture(scope="session")
def problem():
    """`draw_problem` for tests that cannot import it."""
    return draw_problem


@pytest.fixture(
    params=["process_time", pytest.param("perf_counter", marks=pytest.mark.nightly)],
    ids=["processor", "clock"],
)
def clock(request):
    """The name in `time` of what limits of time are held against: beside other work the processor's
    time of the process and its threads, where nothing else runs the clock's.
    """
    return request.param


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
