"""Floating-point settings: workers and proofs compute with round to nearest and subnormal numbers,
whatever the caller has set, and the caller's settings are restored afterwards.
"""

import shlex
import shutil
import subprocess
import sysconfig

import pytest

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


PROOFS = (
    PROGRAM
    + """
import fastcurv.certify.bounds
model = fc.MLP([3, 4, 2], "tanh")
rng = np.random.default_rng(0)
ob = fc.Objective(model, rng.standard_normal((20, 3)), rng.standard_normal((20, 2)), "mse", l2=0.01)
theta = fc.minimize(ob, model.init(rng=0), rng=0).x
H = ob.hessian(theta)
v = rng.standard_normal(H.shape[0])
def verdict(found):
    return str({{key: x for key, x in found.to_dict().items() if key != "wall_time"}})
proofs = {{
    "verdict": lambda: verdict(fc.classify(ob, theta, rng=0)),
    "inertia": lambda: str(fc.inertia(H)),
    "values": lambda: fc.eigvalsh(H),
    "bound of a product": lambda: fc.certify.rounding_bound(ob.hessian(theta), v),
    "bound of the matrix": lambda: fc.certify.bounds.assembled(ob.hessian(theta)).error_bound(),
    "bound of the gradient": lambda: fc.certify.rounding_bound(ob, theta),
    "gradient": lambda: ob.certificates.precise_gradient(theta),
    "value": lambda: ob.certificates.precise_value(theta),
    "floor": lambda: ob.certificates.curvature_floor(theta),
    "third derivative": lambda: ob.certificates.third_bound(theta, 1e-3),
    "matrix": lambda: fc.certify.bounds.assembled(ob.hessian(theta)).error_bound(),
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
