"""One arithmetic for callers and workers: to nearest, subnormal numbers kept, whatever the caller
has set, and set again when the engine is done.
"""

import copy
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

import fastcurv as fc
from fastcurv._engine import Multiplier, QuasiNewton, project_rows, subtract_rows
from fastcurv.structure.tables import LOSSES

# What a program of its own does with its own thread's arithmetic: 0 as a process begins, 1 to 3 the
# other directions of rounding, 4 subnormal numbers flushed to zero where the processor can.
SET = r"""
#include <fenv.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#define FLUSH() _mm_setcsr(_mm_getcsr() | 0x8040)
#define FLUSHES() ((_mm_getcsr() & 0x8040) == 0x8040)
#elif defined(__aarch64__)
static unsigned long long word(void) {
    unsigned long long w;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(w));
    return w;
}
#define FLUSH() __asm__ __volatile__("msr fpcr, %0" : : "r"(word() | 1ull << 24))
#define FLUSHES() ((int)(word() >> 24 & 1))
#endif
static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO, FE_TONEAREST};
void set(int how) {
    fesetenv(FE_DFL_ENV);
    fesetround(modes[how]);
    if (how == 4) FLUSH();
}
int now(void) {
    if (FLUSHES()) return 4;
    for (int how = 0; how < 4; how++)
        if (fegetround() == modes[how]) return how;
    return -1;
}
"""
COMPILER = shlex.split(sysconfig.get_config_var("CC") or "cc")

pytestmark = pytest.mark.skipif(
    not shutil.which(COMPILER[0]), reason="needs a C compiler, to set another arithmetic"
)

PROGRAM = """
import ctypes, itertools, sys
import numpy as np
import fastcurv as fc
from fastcurv import _engine as engine

libm = ctypes.PyDLL({library!r})  # with the interpreter's lock: in this very thread
def under(how, call):
    libm.set(how)
    try:
        found = call()
        assert libm.now() == how, (how, libm.now())
        return found
    finally:
        libm.set(0)

def bits(found):
    return tuple(np.asarray(x).tobytes() for x in (found if isinstance(found, tuple) else (found,)))
"""

# Products of numbers whose results are partly subnormal, by several plans and numbers of threads:
# workers are made in the middle of it, in the arithmetic that its first job happens to find.
THREADS = """
order = {order}
rng = np.random.default_rng(0)
model = fc.MLP([24, 40, 40, 3], "tanh", batch_norm={norm})
X, y = rng.standard_normal((3000, 24)), rng.integers(3, size=3000)
theta, v = model.init(seed=0), rng.standard_normal(model.n_params)
small = v * 1e-306, v * 1e-310
seen = set()
for how, threads in itertools.product(order, (8, 2, 1)):
    ob = fc.Objective(model, X, y, l2=1e-3, n_threads=threads)
    def ask(ob=ob):
        H = ob.hessian(theta)
        value, gradient = ob.value_and_gradient(theta)
        return value, gradient, H @ v, H @ small[0], H @ small[1]
    for _ in range(3):
        seen.add(bits(under(how, ask)))
assert engine.thread_workers() > 0
product = np.abs(np.frombuffer(next(iter(seen))[3]))
assert (product[product > 0] < 2.2250738585072014e-308).any()  # some are subnormal
print(len(seen))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arithmetic")
    (folder / "set.c").write_text(SET)
    path = str(folder / "set.so")
    command = [*COMPILER, "-O1", "-shared", "-fPIC", "-o", path, str(folder / "set.c"), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("order", ["0, 4, 1", "4, 0, 1, 4", "1, 0, 2, 3"])
def test_the_same_bits_on_any_number_of_threads(library, python, order, norm):
    """Whoever rounds upward or flushes to zero, first or later: one product, one set of bits."""
    code = PROGRAM.format(library=library) + THREADS.format(order=f"({order})", norm=norm)
    assert python(code).stdout.split() == ["1"]


def halved(run, W):
    """Steps after each of which the gradient is half of what it was, and the loss 1e5 lower."""
    run.start(W[0], 0.0, W[1])
    for _ in range(9):
        assert run.search() and not run.tell(run.value - 1e5, 0.5 * run.gradient)
    return run.theta, run.gradient_norm


def entries():
    """Every way into the engine, with results that depend on how numbers are rounded."""
    rng = np.random.default_rng(1)
    Q, W = rng.standard_normal((5, 40_000)), rng.standard_normal((3, 40_000))
    S, A = rng.standard_normal((3, 5)), rng.standard_normal((60, 50))
    mse = fc.MLP([6, 8, 7, 2], ["tanh", "gelu"])
    X, Y = rng.standard_normal((900, 6)), rng.standard_normal((900, 2))
    theta, v = mse.init(seed=2), rng.standard_normal(mse.n_params)
    found = {
        "project_rows": lambda: project_rows(Q, W),
        "subtract_rows": lambda: subtract_rows(Q, W.copy(), S),
        "multiplier": lambda: Multiplier("float64", 2)(np.empty((60, 60)), A, A.T),
        "quasi-newton, told": lambda: halved(QuasiNewton(40_000, float, 4), W),
        "predict": lambda: mse.predict(theta, X),
    }
    rows = {
        "dense": fc.Objective(mse, X, Y, "mse", l2=0.1),
        "sparse": fc.Objective(mse, csr_matrix(X), Y, "mse", l2=0.1),
        "streamed": fc.StreamedObjective(mse, X, Y, "mse", l2=0.1),
    }
    for name, ob in rows.items():
        found[f"product, {name}"] = lambda ob=ob: copy.copy(ob).hessian(theta) @ v
        found[f"gradient, {name}"] = lambda ob=ob: copy.copy(ob).gradient(theta)
        found[f"l-bfgs, {name}"] = lambda ob=ob: (
            fc.minimize(copy.copy(ob), theta, "l-bfgs", max_iter=8, verdict=False).x
        )
    few = fc.Objective(mse, X[:9], Y[:9], "mse").ggn(theta)
    for space in ("samples", "outputs"):
        small = few.reduced(space)
        x = rng.standard_normal(small.shape[0])
        found[f"product in {space}"] = lambda small=small, x=x: small @ x
    for loss, row in LOSSES.items():
        numbers = Y
        if row.given is not None:  # some are for positive numbers alone, or two outputs of each
            numbers = np.abs(Y[:, : Y.shape[1] // row.given.per_target]) + 0.1
        y = numbers if row.targets == "numbers" else 1 / (1 + np.exp(-Y))
        y = y / y.sum(axis=1, keepdims=True) if row.targets == "classes" else y
        convex = row.given is None or row.given.convex
        kinds = ("hessian", "ggn", "empirical_fisher") if convex else ("hessian",)
        for options in ({}, {"memory": 400_000}, {"l2": 0.1, "l2_biases": False}):
            ob = fc.Objective(mse, X, y, loss, **options)
            name = f"{loss}, {options}"
            found[f"value, {name}"] = lambda ob=ob: copy.copy(ob).value(theta)
            found[f"gradient, {name}"] = lambda ob=ob: copy.copy(ob).gradient(theta)
            for kind in kinds:
                op = lambda ob=ob, kind=kind: getattr(copy.copy(ob), kind)(theta)  # noqa: E731
                found[f"{kind} v, {name}"] = lambda op=op: op() @ v
                found[f"{kind} V, {name}"] = lambda op=op: op() @ np.stack([v, v[::-1]], 1)
                found[f"{kind} form, {name}"] = lambda op=op: op().quadratic(v)
    return found


ENTRIES = (
    PROGRAM
    + """
sys.path.insert(0, {folder!r})
from test_arithmetic import entries
wrong = []
for name, call in entries().items():
    expected = bits(call())
    wrong += [(name, how) for how in (1, 2, 3, 4) if bits(under(how, call)) != expected]
assert not wrong, wrong
"""
)


def test_every_entry_computes_as_one_that_rounds_to_nearest(library, python):
    """Whatever the caller's arithmetic is, which is its own again afterwards."""
    code = ENTRIES.format(library=library, folder=str(Path(__file__).parent))
    python(code)


PROOFS = (
    PROGRAM
    + """
model = fc.MLP([3, 4, 2], "tanh")
rng = np.random.default_rng(0)
ob = fc.Objective(model, rng.standard_normal((20, 3)), rng.standard_normal((20, 2)), "mse", l2=0.01)
theta = fc.minimize(ob, model.init(seed=0), seed=0).x
H = ob.hessian(theta)
v = rng.standard_normal(H.shape[0])
def verdict(found):
    return str({{key: x for key, x in found.to_dict().items() if key != "wall_time"}})
proofs = {{
    "verdict": lambda: verdict(fc.classify(ob, theta, seed=0)),
    "inertia": lambda: str(fc.inertia(H)),
    "values": lambda: fc.eigvalsh(H),
    "bound of a product": lambda: ob.hessian(theta).rounding_bound(v),
    "bounds of columns": lambda: ob.hessian(theta).column_bounds(),
    "bound of the gradient": lambda: ob.rounding_bound(theta),
    "gradient": lambda: ob.certificates.precise_gradient(theta),
    "value": lambda: ob.certificates.precise_value(theta),
    "floor": lambda: ob.certificates.curvature_floor(theta),
    "third derivative": lambda: ob.certificates.third_bound(theta, 1e-3),
    "matrix": lambda: ob.hessian(theta).assembled().error(),
}}
def said(call):
    found = call()
    return found if isinstance(found, str) else bits(found)
wrong = []
for name, call in proofs.items():
    expected = said(call)
    wrong += [(name, how) for how in (1, 2, 3, 4) if under(how, lambda: said(call)) != expected]
assert not wrong, wrong
assert "'certified': True" in proofs["verdict"](), proofs["verdict"]()
"""
)


def test_proofs_are_made_to_nearest(library, python):
    """What NumPy computes in them too: bounds and verdicts are those of a caller who rounds to
    nearest.
    """
    python(PROOFS.format(library=library))


def test_a_handler_that_asks_amid_a_pass_is_in_the_callers_arithmetic(library, python):
    """And what it changes is the thread's from then on, not the pass's."""
    python(
        PROGRAM.format(library=library)
        + """
import signal
model = fc.MLP([200, 300, 300, 10])
rng = np.random.default_rng(0)
ob = fc.Objective(model, rng.standard_normal((4000, 200)), rng.integers(10, size=4000))
theta = model.init(seed=0)
H, v, seen = ob.hessian(theta), rng.standard_normal(model.n_params), []
expected = H @ v
def handler(*_):
    seen.append(libm.now())
    libm.set(4)
signal.signal(signal.SIGALRM, handler)
libm.set(1)
signal.setitimer(signal.ITIMER_REAL, 0.02)
while not seen:
    assert np.array_equal(H @ v, expected)
assert seen == [1] and libm.now() == 4, (seen, libm.now())
"""
    )
