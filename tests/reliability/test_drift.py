"""Memory after a hundred thousand products, ten thousand plans and ten thousand calls of eigsh, and
the documented memory of an operator.
"""

from pathlib import Path

import pytest

from ..programs import NET

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the system does not say what a process holds"
)

START = (
    NET
    + """
import gc

def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def drift(call, times):
    # what the process grows by, after the first tenth, in bytes
    for _ in range(times // 10):
        call()
    before = resident()
    for _ in range(times - times // 10):
        call()
    return resident() - before

ob, theta, v = drawn([5, 9, 3], 40, l2=0.1)
H = ob.hessian(theta)
"""
)
CALLS = {
    "products": ("lambda: H @ v", 100_000),
    "plans": ("lambda: drawn([5, 9, 3], 40)[0].hessian(theta) @ v", 10_000),
    "eigsh": ("lambda: fc.eigsh(H, 2, rng=0)", 10_000),
}


@pytest.mark.by_day(share=1 / 3)
@needs_proc
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("share", [50, pytest.param(1, marks=pytest.mark.nightly)])
def test_memory_does_not_grow_over_many_calls(name, share, python):
    """Memory grows by at most 1 MiB over many calls. The daily run makes 1/50 of the calls."""
    call, times = CALLS[name]
    code = START + f"grown = drift({call}, {times // share})\nassert grown <= 1 << 20, grown\n"
    python(code, timeout=3600 if share == 1 else 1200)


@needs_proc
@pytest.mark.nightly
def test_peak_memory_of_an_operator_matches_its_documentation(python):
    """The peak memory of an operator and its first product is, within 5%, the sum of nbytes and the
    padded copy of X, as documented.
    """
    python(
        NET
        + """
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
ob, theta, _ = drawn([100, 600, 600, 10], 20000)
ob.batch(slice(0, 50)).hessian(theta) @ theta
open("/proc/self/clear_refs", "w").write("5")
before = peak()
H = ob.hessian(theta)
H @ theta
grown, said = peak() - before, H.nbytes + ob.X.nbytes
assert abs(grown - said) <= 0.05 * said, (grown, said)
""",
    )
