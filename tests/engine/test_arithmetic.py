"""Floating-point settings: callers and workers compute with round to nearest and subnormal numbers,
whatever the caller has set, and the caller's settings are restored afterwards.
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
from fastcurv._engine import MatrixMultiplier, QuasiNewton, project_rows, subtract_rows
from fastcurv.structure.tables import LOSSES

# `set` sets the arithmetic of the calling thread and `now` returns it: 0 is the default, 1 to 3
# round upward, downward and toward zero, and 4 flushes subnormal numbers to zero where the
# processor supports it.
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

# Products whose results are partly subnormal, by several plans and numbers of threads. Workers are
# created during a job, with the arithmetic that is set at that moment.
THREADS = """
order = {order}
rng = np.random.default_rng(0)
model = fc.MLP([24, 40, 40, 3], "tanh", batch_norm={norm})
X, y = rng.standard_normal((1200, 24)), rng.integers(3, size=1200)
theta, v = model.init(rng=0), rng.standard_normal(model.n_params)
small = v * 1e-306, v * 1e-310
seen = set()
for how, threads in itertools.product(order, (3, 1)):
    ob = fc.Objective(model, X, y, l2=1e-3, n_threads=threads)
    def ask(ob=ob):
        H = ob.hessian(theta)
        value, gradient = ob.value_and_gradient(theta)
        return value, gradient, H @ v, H @ small[0], H @ small[1]
    seen.add(bits(under(how, ask)))
assert engine.count_worker_threads() > 0
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


@pytest.mark.by_day(share=1 / 3)
@pytest.mark.parametrize(
    "order, norm", [("0, 4, 1", False), ("4, 0, 1, 4", True), ("1, 0, 2, 3", False)]
)
def test_products_are_bitwise_identical_on_any_number_of_threads(library, python, order, norm):
    """Products are bitwise identical if the calling thread rounds upward or flushes subnormals to
    zero, before or after the first call, for one and three threads.
    """
    code = PROGRAM.format(library=library) + THREADS.format(order=f"({order})", norm=norm)
    assert python(code).stdout.split() == ["1"]


def halve_gradients(run, W):
    """Run nine steps of L-BFGS whose trial points have half the gradient and a value lower by 1e5,
    and return the last point and the norm of its gradient.
    """
    run.start(W[0], 0.0, W[1])
    for _ in range(9):
        assert run.start_search() and not run.supply_trial(run.value - 1e5, 0.5 * run.gradient)
    return run.theta, run.gradient_norm


def engine_calls():
    """Return ``{name: function}`` with a call, without arguments, of each entry point of the
    engine, on inputs whose results depend on the rounding mode.
    """
    rng = np.random.default_rng(1)
    Q, W = rng.standard_normal((5, 40_000)), rng.standard_normal((3, 40_000))
    S, A = rng.standard_normal((3, 5)), rng.standard_normal((60, 50))
    mse = fc.MLP([6, 8, 7, 2], ["tanh", "gelu"])
    X, Y = rng.standard_normal((900, 6)), rng.standard_normal((900, 2))
    theta, v = mse.init(rng=2), rng.standard_normal(mse.n_params)
    found = {
        "project_rows": lambda: project_rows(Q, W),
        "subtract_rows": lambda: subtract_rows(Q, W.copy(), S),
        "multiplier": lambda: MatrixMultiplier("float64", 2)(np.empty((60, 60)), A, A.T),
        "quasi-newton, told": lambda: halve_gradients(QuasiNewton(40_000, float, 4), W),
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
        if row.given is not None:  # such losses may need positive targets or two outputs per target
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
                found[f"{kind} form, {name}"] = lambda op=op: op().quadratic_form(v)
    return found


ENTRIES = (
    PROGRAM
    + """
sys.path.insert(0, {folder!r})
from test_arithmetic import engine_calls
wrong = []
for name, call in engine_calls().items():
    expected = bits(call())
    wrong += [(name, how) for how in (1, 2, 3, 4) if bits(under(how, call)) != expected]
assert not wrong, wrong
"""
)


def test_every_entry_point_rounds_to_nearest(library, python):
    """Every entry point returns the results of rounding to nearest whatever rounding mode the
    caller has set, and restores the caller's mode.
    """
    code = ENTRIES.format(library=library, folder=str(Path(__file__).parent))
    python(code)


PROOFS = (
    PROGRAM
    + """
model = fc.MLP([3, 4, 2], "tanh")
rng = np.random.default_rng(0)
ob = fc.Objective(model, rng.standard_normal((20, 3)), rng.standard_normal((20, 2)), "mse", l2=0.01)
theta = fc.minimize(ob, model.init(rng=0), rng=0).x
H = ob.hessian(theta)
v = rng.standard_normal(H.shape[0])
def verdict(found):
    return str({{key: x for key, x in found.to_dict().items() if key != "wall_time"}})
proofs = {{
    "verdict": lambda: verdict(fc.classify(ob, theta, seed=0)),
    "inertia": lambda: str(fc.inertia(H)),
    "values": lambda: fc.eigvalsh(H),
    "bound of a product": lambda: ob.hessian(theta).rounding_bound(v),
    "bounds of columns": lambda: ob.hessian(theta).column_error_bounds(),
    "bound of the gradient": lambda: ob.rounding_bound(theta),
    "gradient": lambda: ob.certificates.precise_gradient(theta),
    "value": lambda: ob.certificates.precise_value(theta),
    "floor": lambda: ob.certificates.curvature_floor(theta),
    "third derivative": lambda: ob.certificates.third_bound(theta, 1e-3),
    "matrix": lambda: ob.hessian(theta).assembled().error_bound(),
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


def test_proofs_round_to_nearest(library, python):
    """Bounds and verdicts, parts of which NumPy computes, are the same for every rounding mode of
    the caller.
    """
    python(PROOFS.format(library=library))
