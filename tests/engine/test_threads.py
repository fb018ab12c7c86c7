"""Many Python threads, forks, Ctrl-C, the end of the interpreter, the environment's variables, the
floating-point environment.

What could hang or kill the process runs in one of its own, with a time limit.
"""

import os
import platform
import threading
from pathlib import Path

import numpy as np
import pytest

from fastcurv import _engine as engine

NET = """
import os, signal, sys, threading, time
import numpy as np
import fastcurv as fc
from fastcurv import _engine as engine

def drawn(sizes, N, threads=2, seed=0, dtype="float64", **options):
    rng = np.random.default_rng(seed)
    model = fc.MLP(sizes, "tanh", dtype=dtype)
    X, y = rng.standard_normal((N, sizes[0])), rng.standard_normal((N, sizes[-1]))
    ob = fc.Objective(model, X, y, "mse", n_threads=threads, **options)
    return ob, model.init(seed=1), rng.standard_normal(model.n_params).astype(dtype)

TALL, WIDE = ([33, 31, 17, 7], 700), ([129, 131, 131, 257, 33], 65)
"""


# --- many Python threads
# ------------------------------------------------------------------------------------------------


def run_all(jobs):
    """All jobs at once, each in a thread of its own; what one of them raises is raised here."""
    failures, gate = [], threading.Barrier(len(jobs))

    def run(job):
        try:
            gate.wait(30)
            job()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if failures:
        raise failures[0]


@pytest.mark.parametrize(
    "sizes, N", [([33, 31, 17, 7], 700), ([129, 131, 131, 257, 33], 65), ([2, 5, 1], 9)]
)
def test_many_threads(sizes, N, rng, problem):
    """On one operator, one objective, and on operators of their own: everybody gets the bits of a
    single thread.
    """
    p = problem(rng, sizes, "tanh", "mse", N, n_threads=2)
    V = rng.standard_normal((p.n, 6))
    H = p.ob.hessian(p.theta)
    product, form = H @ V, H.quadratic(V)
    other = p.theta + 0.1
    values = {True: p.ob.value_and_gradient(p.theta), False: p.ob.value_and_gradient(other)}
    spent = H.n_products

    def on_one_operator(j):
        def job():
            for _ in range(5):
                assert np.array_equal(H @ V[:, j], product[:, j])
                assert H.quadratic(V[:, j]) == form[j]

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


def test_eight_threads_of_a_thousand_products(rng, problem):
    """On one operator, and each on its own: what a Python without its lock would run side by
    side.
    """
    p = problem(rng, [5, 9, 3], "tanh", "mse", 40, n_threads=2)
    V = rng.standard_normal((8, p.n))
    shared = p.ob.hessian(p.theta)
    alone = [shared.product(v) for v in V]

    def job(j, H):
        def run():
            mine = p.ob.hessian(p.theta) if H is None else H
            out = np.empty(p.n)
            for _ in range(1000):
                assert np.array_equal(mine.product(V[j], out=out), alone[j])

        return run

    for H in (shared, None):
        run_all([job(j, H) for j in range(8)])


def test_every_module_says_that_it_needs_no_lock():
    sources = list(Path(engine.__file__).parent.glob("*.pyx"))
    if not sources:
        pytest.skip("installed without its sources")
    for path in sources:
        assert "# cython: freethreading_compatible=True\n" in path.read_text(), path.name


def test_the_interpreter_lock_is_dropped(python):
    """While a product runs another Python thread does."""
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
for _ in range(20):
    before = time.perf_counter()
    H @ v
    after = time.perf_counter()
    inside += sum(before < tick < after for tick in list(ticks))
stop.set()
thread.join()
assert inside >= 5, inside
"""
    )


def test_workers_are_made_once_and_limited(python):
    """A pool of at most n_threads - 1, whatever was asked for before; a limit holds for the whole
    process.
    """
    python(
        NET
        + """
assert engine.thread_workers() == 0
ob, theta, v = drawn(*TALL, threads=3)
H = ob.hessian(theta)
product = H @ v
assert engine.thread_workers() == 2
for _ in range(50):
    assert np.array_equal(H @ v, product)
assert engine.thread_workers() == 2
engine.set_thread_limit(1)
assert engine.get_thread_limit() == 1 and np.array_equal(H @ v, product)
engine.set_thread_limit(0)
assert engine.get_thread_limit() == 0
drawn(*TALL, threads=100000)[0].value(theta)
assert engine.thread_workers() < 64
"""
    )


def test_threadpoolctl(rng, problem):
    """It sees the engine's team, and limits it for a while; the bits stay."""
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def ours():
        return [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "fastcurv"]

    p = problem(rng, [33, 31, 17, 7], "tanh", "mse", 700, n_threads=2)
    H = p.ob.hessian(p.theta)
    product, before = H @ p.theta, ours()
    assert len(before) == 1 and before[0]["num_threads"] == engine.default_threads()
    with threadpoolctl.threadpool_limits(1, user_api="fastcurv"):
        assert ours()[0]["num_threads"] == engine.get_thread_limit() == 1
        assert np.array_equal(H @ p.theta, product)
    assert ours() == before and engine.get_thread_limit() == 0


# --- fork
# --------------------------------------------------------------------------------------------------


FORK = (
    NET
    + """
cases = []
for shape in (TALL, WIDE):
    ob, theta, v = drawn(*shape)
    H = ob.hessian(theta)
    cases.append((ob, theta, H, v, H @ v))
assert engine.thread_workers() >= 1

def child():
    for ob, theta, H, v, product in cases:
        assert np.array_equal(H @ v, product)
        assert np.array_equal(ob.hessian(theta) @ v, product)
    assert engine.thread_workers() >= 1
"""
)


def test_fork(python):
    """Children of a process with workers make their own, and get the same bits; so does the parent
    afterwards.
    """
    python(
        FORK
        + """
for _ in range(20):
    for ob, theta, H, v, product in cases:
        H @ v
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            grandchild = os.fork()
            if grandchild == 0:
                child()
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1])
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    child()
""",
        timeout=120,
    )


def test_multiprocessing(python):
    """A pool by fork, whose operators come by memory and by pickle."""
    python(
        FORK
        + """
import multiprocessing
def work(i):
    child()
    ob, theta, H, v, product = cases[i % 2]
    return H, v, H @ v
with multiprocessing.get_context("fork").Pool(2) as pool:
    for i, (H, v, product) in enumerate(pool.map(work, range(4))):
        assert np.array_equal(product, cases[i % 2][4]) and np.array_equal(H @ v, product)
""",
        timeout=120,
    )


def test_fork_while_another_thread_multiplies(python):
    """The fork waits for the product at hand; the child finds threads and operators that nobody
    holds.
    """
    python(
        FORK
        + """
stop = threading.Event()
def busy(case):
    ob, theta, H, v, product = case
    while not stop.is_set():
        H @ v
threads = [threading.Thread(target=busy, args=(case,)) for case in cases]
for thread in threads:
    thread.start()
for _ in range(20):
    time.sleep(0.005)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        code = 1
        try:
            for ob, theta, H, v, product in cases:
                assert np.array_equal(ob.hessian(theta) @ v, product)
                assert np.array_equal(H @ v, product)
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        stop.set()
    assert status == 0, f"child: {status}"
stop.set()
for thread in threads:
    thread.join()
""",
        timeout=120,
    )


# --- Ctrl-C, and the end
# ------------------------------------------------------------------------------------------------


INTERRUPT = (
    NET
    + """
def interrupted(call, after=0.3):
    # Ctrl-C that long into the call: how long until KeyboardInterrupt
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.perf_counter()
    try:
        call()
    except KeyboardInterrupt:
        return time.perf_counter() - begin - after
    raise AssertionError("the call ended on its own")
"""
)


@pytest.mark.parametrize(
    "prepare, call",
    [
        (
            "H = drawn([160, 200, 10], 1500)[0].hessian(theta); V = np.tile(v[:, None], 100)",
            "H @ V",
        ),
        (
            "H = drawn([160, 200, 10], 1500)[0].hessian(theta); V = np.tile(v[:, None], 100)",
            "H.quadratic(V)",
        ),
        ("ob = drawn([160, 200, 10], 12000, memory=3000000)[0]; H = ob.hessian(theta)", "H @ v"),
        ("ob = drawn([160, 200, 10], 12000, memory=3000000)[0]", "ob.value_and_gradient(theta)"),
    ],
    ids=["a block of vectors", "forms", "a product in chunks", "a gradient in chunks"],
)
def test_interrupt(prepare, call, python):
    """Ctrl-C ends a call of many seconds within one.

    Plain loops on one thread make the call long.
    """
    python(
        INTERRUPT
        + f"""
ob, theta, v = drawn([160, 200, 10], 1)
{prepare}
late = interrupted(lambda: {call})
assert late <= 1, f"{{late:.1f}} s late"
""",
        environment={"FASTCURV_ARCH": "reference", "FASTCURV_NUM_THREADS": "1"},
        timeout=120,
    )


CALLS = [
    "ob.hessian(theta)",
    "ob.value(theta + 1)",
    "ob.value_and_gradient(theta + 1)",
    "H @ v",
    "H @ V",
    "H.quadratic(v)",
    "H.quadratic(V)",
    "J @ v",
    "J.T @ u",
    "ob.model.predict(theta, ob.X)",
    "ob.hessp(theta, v)",
    "ob.ggn(theta)",
    "G @ V",
]


@pytest.mark.parametrize(
    "sizes, N, threads",
    [([784, 512, 512, 10], 3000, 2), ([13, 64, 1], 150_000, 1)],
    ids=["wide", "tall"],
)
def test_ctrl_c_within_200_ms(sizes, N, threads, python):
    """In every compiled pass; and what was interrupted is as good as before."""
    python(
        INTERRUPT
        + f"""
ob, theta, v = drawn({sizes}, {N}, {threads}, dtype="float64")
V, u = np.tile(v[:, None], 4), np.ones({N} * {sizes[-1]})
H, G, J = ob.hessian(theta), ob.ggn(theta), ob.jacobian(theta)
before = H @ v, ob.value(theta), J @ v
slowest = {{}}
for call in {CALLS}:
    once = eval("lambda: " + call)
    def again():                             # the signal falls into the middle of one
        while True:
            once()
    slowest[call] = interrupted(again, 0.13)
assert max(slowest.values()) <= 0.2, slowest
after = H @ v, ob.value(theta), J @ v
assert np.array_equal(before[0], after[0]) and before[1] == after[1]
assert np.array_equal(before[2], after[2])
""",
        timeout=120,
    )


def test_a_handler_may_use_the_engine_and_fork(python):
    """A signal handler runs in the middle of a pass, which goes on after it to the same bits; in
    its child it cannot.
    """
    python(
        NET
        + """
ob, theta, v = drawn([784, 512, 512, 10], 3000)
small, theta_, v_ = drawn(*WIDE)
H, inner = ob.hessian(theta), small.hessian(theta_)
alone, expected, parent, ran = inner @ v_, H @ v, os.getpid(), []
def handler(*_):
    child = os.fork()
    ran.append((np.array_equal(inner @ v_, alone), child))
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    for _ in range(3):
        assert np.array_equal(H @ v, expected)
except RuntimeError as error:
    assert os.getpid() != parent and "forked" in str(error)
    os._exit(7 if np.array_equal(H @ v, expected) and np.array_equal(inner @ v_, alone) else 1)
if os.getpid() != parent:
    os._exit(8)                                  # between two products nothing is lost
assert len(ran) == 1 and ran[0][0]
assert os.waitstatus_to_exitcode(os.waitpid(ran[0][1], 0)[1]) in (7, 8)
"""
    )


def test_interrupted_evaluation_leaves_no_stale_value(python):
    """An exception from a signal handler amid `value` must not make the next call return what stood
    there before.
    """
    python(
        NET
        + """
ob, theta, v = drawn([300, 300, 300, 10], 3000, threads=1)
class Alarm(Exception): pass
def handler(*_): raise Alarm
signal.signal(signal.SIGALRM, handler)
true = ob.batch(slice(None)).value_and_gradient(theta)
begin = time.perf_counter()
ob.value(theta + 1)
taken = time.perf_counter() - begin
seen = 0
for share in (0.2, 0.4, 0.6):
    ob.value(theta + 1)
    signal.setitimer(signal.ITIMER_REAL, max(1e-4, share * taken))
    try:
        ob.value(theta)
        time.sleep(taken)
    except Alarm:
        seen += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert ob.value(theta) == true[0], (ob.value(theta), true[0])
    value, gradient = ob.value_and_gradient(theta)
    assert value == true[0]
    assert np.array_equal(gradient, true[1])
assert seen == 3
"""
    )


@pytest.mark.parametrize(
    "end",
    [
        "pass",
        "sys.exit(0)",
        "threading.Thread(target=lambda: [H @ v for _ in range(200)], daemon=True).start(); "
        "time.sleep(0.05)",
    ],
)
def test_exit_with_live_workers(end, python):
    """The interpreter ends at once and in order, workers awake or asleep, products running or
    not.
    """
    done = python(
        NET + "ob, theta, v = drawn(*WIDE)\nH = ob.hessian(theta)\nH @ v\nassert "
        "engine.thread_workers() == 1\n" + end,
        timeout=30,
    )
    assert done.stderr == ""


# --- variables of the environment
# ---------------------------------------------------------------------------------------


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
            said = fastcurv.show_config("dict")["kernels"]
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    return os.read(reader, 10000).decode()
"""


def test_arch_variable(python):
    """FASTCURV_ARCH forces each table that this CPU has; anything else is one clear sentence at
    import.
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
        "ValueError: FASTCURV_ARCH is 'sse9'"
    )


def test_threads_variable(python, monkeypatch, rng, problem):
    """FASTCURV_NUM_THREADS is the default of n_threads; nonsense is one clear sentence."""
    p = problem(rng, [33, 31, 17, 7], "tanh", "mse", 700)
    for text, number in (("1", 1), ("3", 3), (" 2 ", 2), ("999", 64)):
        monkeypatch.setenv("FASTCURV_NUM_THREADS", text)
        again = p.ob.batch(slice(None))
        assert engine.default_threads() == number == again.hessian(p.theta).layout["threads"]
    for text in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("FASTCURV_NUM_THREADS", text)
        with pytest.raises(ValueError, match="FASTCURV_NUM_THREADS.*positive whole number"):
            p.ob.batch(slice(None)).value(p.theta)
    show = "from fastcurv import show_config; print(show_config('dict')['threads'])"
    assert python(show, environment={"FASTCURV_NUM_THREADS": "5"}).stdout.strip() == "5"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_affinity_is_respected(python):
    """The default number of threads is that of the CPUs the process may use."""
    python("""
import os
from fastcurv import _engine as engine
allowed = os.sched_getaffinity(0)
assert 1 <= engine.default_threads() <= len(allowed)
os.sched_setaffinity(0, {min(allowed)})
assert engine.default_threads() == 1
""")


# --- the floating-point environment
# -------------------------------------------------------------------------------------


def test_floating_point_environment(python):
    """Import and calls change neither rounding nor subnormals nor NumPy's error state, in the
    caller's thread or in others.
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
        theta = model.init(seed=0)
        H = ob.hessian(theta)
        H @ theta, H.quadratic(theta), ob.ggn(theta) @ theta
        H @ (np.nan * theta)
        H @ (np.finfo(dtype).tiny * theta)
        assert state() == before
found = []
thread = threading.Thread(target=lambda: found.append(state()))
thread.start(); thread.join()
assert found == [before]
""")


def test_subnormals_are_not_flushed(arch, problem, rng):
    """A product with v near the smallest numbers keeps them, in all threads."""
    p = problem(rng, [33, 31, 17, 7], "identity", "mse", 700, n_threads=2)
    H = p.ob.hessian(p.theta)
    v = rng.standard_normal(p.n)
    tiny = H @ np.ldexp(v, -1050)
    assert 0 < abs(tiny).max() < np.finfo(float).tiny
    assert np.linalg.norm(np.ldexp(tiny, 1050) - H @ v) <= 1e-4 * np.linalg.norm(H @ v)
