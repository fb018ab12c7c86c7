"""Python threads, workers, environment variables, and the floating-point environment.

Tests that could hang or end the process run in a process of their own, with a time limit.
"""

import os
import platform
import sys
import threading
import time

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine as engine

from ..programs import NET

# --- many Python threads


def run_all(jobs):
    """Run all jobs, functions without arguments, at once, each in its own thread, and raise the
    first exception of any job.
    """
    failures, gate = [], threading.Barrier(len(jobs))

    def run(job):
        try:
            gate.wait(300)
            job()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if failures:
        raise failures[0]


@pytest.mark.parametrize(
    "sizes, N", [([33, 31, 17, 7], 700), ([129, 131, 131, 257, 33], 65), ([2, 5, 1], 9)]
)
def test_concurrent_threads_get_bitwise_identical_results(sizes, N, rng, problem):
    """Threads that share an operator or an objective, or use their own, get results bitwise
    identical to those of a single thread.
    """
    p = problem(rng, sizes, "tanh", "mse", N, n_threads=2)
    V = rng.standard_normal((p.n, 6))
    H = p.ob.hessian(p.theta)
    product, form = H @ V, H.quadratic_form(V)
    other = p.theta + 0.1
    values = {True: p.ob.value_and_gradient(p.theta), False: p.ob.value_and_gradient(other)}
    spent = H.n_products

    def on_one_operator(j):
        def job():
            for _ in range(5):
                assert np.array_equal(H @ V[:, j], product[:, j])
                assert H.quadratic_form(V[:, j]) == form[j]

        return job

    def on_its_own(j):
        def job():
            for _ in range(3):
                mine = p.ob.hessian(p.theta)
                assert np.array_equal(mine @ V[:, j], product[:, j])
                del mine

        return job

    def on_the_objective(first):
        def job():
            for _ in range(5):
                value, gradient = p.ob.value_and_gradient(p.theta if first else other)
                assert value == values[first][0] and np.array_equal(gradient, values[first][1])
                assert np.array_equal(p.ob.hessp(p.theta, V[:, 0]), product[:, 0])

        return job

    run_all(
        [on_one_operator(j) for j in range(4)]
        + [on_its_own(j) for j in range(4)]
        + [on_the_objective(True), on_the_objective(False)]
    )
    assert H.n_products == spent + 4 * 5 * 2


def test_gil_is_released(python):
    """Another Python thread runs while the engine computes a product."""
    python(
        NET
        + """
ob, theta, v = drawn([257, 300, 300, 33], 400, threads=1)
H = ob.hessian(theta)
ticks, stop = [], threading.Event()
def clock():
    while not stop.is_set():
        ticks.append(time.perf_counter())
        time.sleep(0.0005)
thread = threading.Thread(target=clock)
thread.start()
inside = 0
for _ in range(5000):                        # on a busy machine it may be scheduled late
    before = time.perf_counter()
    H @ v
    after = time.perf_counter()
    inside += sum(before < tick < after for tick in list(ticks))
    if inside >= 5:
        break
    ticks.clear()
stop.set()
thread.join()
assert inside >= 5, inside
"""
    )


def test_workers_are_created_once_and_limited(python):
    """The engine creates at most n_threads - 1 workers, and repeated products create no more. A
    thread limit applies to the whole process, and a huge n_threads gives fewer than 64 workers.
    """
    python(
        NET
        + """
assert engine.count_worker_threads() == 0
ob, theta, v = drawn(*TALL, threads=3)
H = ob.hessian(theta)
product = H @ v
assert engine.count_worker_threads() == 2
for _ in range(50):
    assert np.array_equal(H @ v, product)
assert engine.count_worker_threads() == 2
engine.set_thread_limit(1)
assert engine.get_thread_limit() == 1 and np.array_equal(H @ v, product)
engine.set_thread_limit(0)
assert engine.get_thread_limit() == 0
drawn(*TALL, threads=100000)[0].value(theta)
assert engine.count_worker_threads() < 64
"""
    )


def test_algorithms_respect_n_threads_of_their_operator(python):
    """With n_threads=1, operations on long basis vectors wake no worker. Without n_threads, all
    available threads are used, and a limit of the surrounding context applies.
    """
    python(
        NET
        + """
H = drawn([200, 400, 3], 5, threads=1)[0]
theta = H.model.init(rng=0)
fc.eigsh(H.hessian(theta), 4, rng=0)
fc.spectral_density(H.hessian(theta), 2, 40, rng=0)
fc.minimize(H, theta, "trust-region", max_iter=3, verdict=False)
fc.minimize(ob=H, theta0=theta, method="l-bfgs", max_iter=40, verdict=False)
fc.spectral_density(op=H.hessian(theta), n_probes=2, n_steps=40, rng=0)
assert engine.count_worker_threads() == 0
there = engine.default_n_threads()
with engine.FloatingPointMode(1):
    assert engine.default_n_threads() == 1
    with engine.FloatingPointMode(2), engine.FloatingPointMode():
        assert engine.default_n_threads() == 1
with engine.FloatingPointMode(2):
    assert engine.default_n_threads() == min(2, there)
    os.environ["FASTCURV_NUM_THREADS"] = "7"
    assert engine.default_n_threads() == 2
assert engine.default_n_threads() == 7
fc.eigsh(drawn([200, 400, 3], 5, threads=None)[0].hessian(theta), 4, rng=0)
assert engine.count_worker_threads() > 0
"""
    )


def test_threadpoolctl_limits_the_worker_threads(rng, problem, monkeypatch):
    """threadpoolctl finds the engine's worker threads and limits their number temporarily, and
    results stay bitwise identical.
    """
    threadpoolctl = pytest.importorskip("threadpoolctl")
    fc.register_threadpoolctl()
    # A limit that equals the default number of threads counts as no limit.
    monkeypatch.setenv("FASTCURV_NUM_THREADS", "2")

    def engine_pools():
        return [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "fastcurv"]

    p = problem(rng, [33, 31, 17, 7], "tanh", "mse", 700, n_threads=2)
    H = p.ob.hessian(p.theta)
    product, before = H @ p.theta, engine_pools()
    assert len(before) == 1 and before[0]["num_threads"] == engine.default_n_threads()
    with threadpoolctl.threadpool_limits(1, user_api="fastcurv"):
        assert engine_pools()[0]["num_threads"] == engine.get_thread_limit() == 1
        assert np.array_equal(H @ p.theta, product)
    assert engine_pools() == before and engine.get_thread_limit() == 0


# --- variables of the environment


IMPORTS = """
import os, sys
import numpy, scipy.linalg.cython_blas, scipy.optimize, scipy.sparse.linalg, scipy.special
def imported_with(value):
    # what `import fastcurv` comes to with FASTCURV_ARCH set so, in a child of a process that has
    # only NumPy and SciPy
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.environ["FASTCURV_ARCH"] = value
        try:
            import fastcurv
            said = fastcurv.show_versions("dict")["kernels"]
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    return os.read(reader, 10000).decode()
"""


def test_environment_variable_chooses_the_kernel_table(python):
    """FASTCURV_ARCH forces each kernel table that this CPU can run. Any other value raises an error
    at import that names the available tables.
    """
    names = engine.available_archs()
    foreign = "neon" if platform.machine() in ("x86_64", "AMD64") else "avx512"
    python(
        IMPORTS
        + f"""
names = {names!r}
for name in names:
    assert imported_with(name) == name
assert imported_with("") == names[0]
for name in ("sse9", {foreign!r}, "AVX 2; rm"):
    said = imported_with(name)
    assert said.startswith("ValueError") and repr(name) in said, said
    assert all(known in said for known in names), said
"""
    )
    done = python("import fastcurv", environment={"FASTCURV_ARCH": "sse9"}, check=False)
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1].startswith(
        "ValueError: FASTCURV_ARCH must be one of "
    )


def test_environment_variable_sets_the_number_of_threads(python, monkeypatch, rng, problem):
    """FASTCURV_NUM_THREADS is the default of n_threads. A value that is not a positive whole number
    raises ValueError.
    """
    p = problem(rng, [33, 31, 17, 7], "tanh", "mse", 700)
    for text, number in (("1", 1), ("3", 3), (" 2 ", 2), ("999", 64)):
        monkeypatch.setenv("FASTCURV_NUM_THREADS", text)
        again = p.ob.batch(slice(None))
        assert engine.default_n_threads() == number
        assert again.hessian(p.theta).layout["threads"] == min(
            number, 9
        )  # more threads would not be faster
    for text in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("FASTCURV_NUM_THREADS", text)
        with pytest.raises(ValueError, match="FASTCURV_NUM_THREADS.*positive whole number"):
            p.ob.batch(slice(None)).value(p.theta)
    show = "from fastcurv import show_versions; print(show_versions('dict')['threads'])"
    assert python(show, environment={"FASTCURV_NUM_THREADS": "5"}).stdout.strip() == "5"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_affinity_is_respected(python):
    """The default number of threads is the number of CPUs that the process may use."""
    python("""
import os
from fastcurv import _engine as engine
allowed = os.sched_getaffinity(0)
assert 1 <= engine.default_n_threads() <= len(allowed)
os.sched_setaffinity(0, {min(allowed)})
assert engine.default_n_threads() == 1
""")


# --- the floating-point environment


def test_subnormals_are_not_flushed(arch, problem, rng):
    """A product with a subnormal v keeps the subnormal numbers of the result, with every kernel
    table and two threads.
    """
    p = problem(rng, [33, 31, 17, 7], "identity", "mse", 700, n_threads=2)
    H = p.ob.hessian(p.theta)
    v = rng.standard_normal(p.n)
    tiny = H @ np.ldexp(v, -1050)
    assert 0 < abs(tiny).max() < np.finfo(float).tiny
    assert np.linalg.norm(np.ldexp(tiny, 1050) - H @ v) <= 1e-4 * np.linalg.norm(H @ v)


@pytest.mark.parametrize("asked", [1, 2, 8, 64])
def test_number_of_threads_follows_the_work(asked):
    rng = np.random.default_rng(0)
    used = []
    for sizes, rows in (((1, 3, 1), 20), ((64, 32, 16, 10), 1797), ((784, 512, 512, 10), 1024)):
        ob = fc.Objective(
            fc.MLP(sizes), rng.standard_normal((rows, sizes[0])), np.zeros((rows, sizes[-1])),
            loss="mse", n_threads=asked,
        )  # fmt: skip
        used.append(ob.hessian(ob.model.init(rng=0)).layout["threads"])
    assert used[0] == 1
    # 60 million operations take about a millisecond
    assert min(asked, 8) <= used[1] <= min(asked, 24)
    assert used[2] == asked


def test_workers_sleep_after_the_last_product(rng, problem):
    """Workers neither compute nor spin for long after a product, so in at least one of the pauses
    that follow, no processor time is used.
    """
    case = problem(rng, (64, 32, 16, 10), N=900, n_threads=2)
    H = case.ob.hessian(case.theta)
    v = rng.standard_normal(H.shape[0])
    for _ in range(5):
        for _ in range(60):
            H @ v
        used = []
        while min(used, default=1.0) > 1e-3:
            before = time.process_time()
            time.sleep(0.02)
            used.append(time.process_time() - before)
            assert len(used) <= 50, used


@pytest.mark.parametrize("sizes, N", [((40, 90, 90, 3), 33), ((5, 30, 2), 2000)])
def test_timed_passes_are_bitwise_identical(sizes, N, rng, problem):
    """While the engine measures whether one thread or all are faster, passes at new points are
    bitwise identical.
    """
    theta0 = problem(rng, sizes, N=N).theta
    alone, together = (
        problem(np.random.default_rng(0), sizes, N=N, n_threads=threads).ob for threads in (1, 4)
    )
    for k in range(280):
        theta = theta0 + 1e-3 * k
        assert together.value(theta) == alone.value(theta)
        assert np.array_equal(together.gradient(theta), alone.gradient(theta))


# --- workers that a job does not need are not woken

BUSY_AND_IDLE = """
import os, time
import numpy as np, fastcurv as fc

def switches():
    found = {}
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/status") as lines:
            found[task] = sum(int(x.split()[1]) for x in lines if "ctxt_switches" in x)
    return found

def operator(threads):
    model = fc.MLP([64, 128, 128, 10])
    X, y = np.ones((3000, 64)), np.arange(3000) % 10
    return fc.Objective(model, X, y, n_threads=threads).hessian(model.init(rng=0))

many, two = operator(64), operator(2)
v = np.ones(two.shape[0])
expected = two @ v
many @ v
assert fc._engine.count_worker_threads() > 6
time.sleep(0.3)
before = switches()
for _ in range(60):
    assert np.array_equal(two @ v, expected)
    time.sleep(0.002)
after = switches()
print(sum(after[task] - before[task] > 10 for task in before))
assert np.array_equal(many @ v, expected)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_unneeded_workers_stay_asleep(python):
    """With more than six workers, products on two threads wake at most two of them, and the others
    are available afterwards.
    """
    assert int(python(BUSY_AND_IDLE).stdout) <= 2


def test_floating_point_environment_is_restored_after_calls(python):
    """Import and calls change neither the rounding mode, nor the treatment of subnormals, nor
    NumPy's error state, in any thread.
    """
    python("""
import ctypes, ctypes.util, threading
import numpy as np
libm = ctypes.CDLL(ctypes.util.find_library("m"))
state = lambda: (libm.fegetround(), np.geterr(), 5e-324 * 1.0, 0.1 + 0.2,
                 float(np.float64(5e-324) * 1), float(np.float32(1e-45) * np.float32(1)),
                 (np.full(64, 5e-324) * 1).sum(),
                 (np.full(64, 1e-45, "f4") * np.float32(1)).sum())
before = state()
assert before[2] == 5e-324 and before[6] > 0 and before[7] > 0
import fastcurv as fc
assert state() == before
rng = np.random.default_rng(0)
for dtype in ("float32", "float64"):
    for sizes in ([33, 31, 17, 7], [129, 131, 131, 257, 33]):
        model = fc.MLP(sizes, "gelu", dtype=dtype)
        X, y = rng.standard_normal((300, sizes[0])), rng.integers(sizes[-1], size=300)
        ob = fc.Objective(model, X, y, n_threads=2)
        theta = model.init(rng=0)
        H = ob.hessian(theta)
        H @ theta, H.quadratic_form(theta), ob.ggn(theta) @ theta
        H @ (np.nan * theta)
        H @ (np.finfo(dtype).tiny * theta)
        assert state() == before
found = []
thread = threading.Thread(target=lambda: found.append(state()))
thread.start(); thread.join()
assert found == [before]
""")
