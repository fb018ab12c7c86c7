"""If any allocation of the engine, NumPy or Python fails, MemoryError is raised, nothing leaks and
the next call is right.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not shutil.which("cc"),
    reason="needs glibc, whose malloc can be stood in for, and a C compiler",
)

PROGRAM = """
import ctypes, gc, sys, traceback
import numpy as np
import fastcurv as fc
from fastcurv.certify.dense_hessian import enclosed_hessian
from fastcurv.network.gram import gram_matrix

shim = ctypes.CDLL(None)
shim.fc_arm.argtypes = [ctypes.c_long, ctypes.c_long]
shim.fc_disarm.restype = shim.fc_live.restype = ctypes.c_long
LEAST = 512                                # below it live Python's small objects alone
DATA = 8192                                # of arrays: NumPy itself dies of some smaller ones
BUFFERS = 1 << 17                          # and where a ufunc lacks one of its own 64 KiB buffers

rng = np.random.default_rng(0)
model = fc.MLP({sizes}, "tanh", residual=True, batch_norm={norm})
X, y = rng.standard_normal(({N}, {sizes}[0])), rng.standard_normal(({N}, {sizes}[-1]))
theta = model.init(rng=0)
v = rng.standard_normal(model.n_params)
V, u = np.tile(v[:, None], 5), np.ones({N} * {sizes}[-1])
ob = fc.Objective(model, X, y, "mse", l2=0.1, n_threads=2)
few = fc.Objective(model, X, y, "mse", n_threads=2, memory=int({share} * ob.hessian(theta).nbytes))
H, J = ob.hessian(theta), ob.jacobian(theta)
H @ v, H @ V, H.quadratic_form(V), J @ v, J.T @ u
CALLS = {{
    "objective": lambda: fc.Objective(model, X, y, "mse").value(theta),
    "value and gradient": lambda: ob.batch(slice(None)).value_and_gradient(theta)[1],
    "hessian": lambda: ob.hessian(theta) @ v,
    "in chunks": lambda: few.hessian(theta) @ v,
    "product": lambda: H @ v,
    "block": lambda: H @ V,
    "forms": lambda: H.quadratic_form(V),
    "jacobian": lambda: ob.jacobian(theta) @ v,
    "ggn": lambda: ob.ggn(theta) @ v,
    "block of the matrix": lambda: H.restrict(layers=[0]).to_dense(),
    "predict": lambda: model.predict(theta, X),
    "eigsh": lambda: fc.eigsh(H, 2, rng=0, max_products=30).values,
    "trace": lambda: fc.trace(H, 4, "hutchinson", 0).estimate,
    "diagonal": lambda: fc.diagonal(H, rng=0).estimate,
}}
if {N} == 400:
    some, weights = ob.batch(slice(0, 57)), np.abs(theta) + 1
    CALLS |= {{
        "matrix by layers": lambda: enclosed_hessian(ob, theta, "hessian").A,
        "bound by layers": lambda: enclosed_hessian(ob, theta, "ggn").error_bound(weights),
        "outputs": lambda: gram_matrix(some.ggn(theta)).K,
    }}
failures, total = [], 0
for name, call in CALLS.items():
    expected = np.array(call())
    call()
    gc.collect()
    before, k = shim.fc_live(), 0
    least = BUFFERS if "layers" in name or "outputs" in name else LEAST
    least = DATA if name in ("eigsh", "trace") else least
    while True:
        k += 1
        found = None
        shim.fc_arm(k, least)
        try:
            found = call()
            shim.fc_disarm()
        except MemoryError:
            shim.fc_disarm()
        except SystemError as error:       # NumPy forgets to name it, in reductions and indexing
            shim.fc_disarm()
            places = [place.filename for place in traceback.extract_tb(error.__traceback__)]
            if any(place.endswith(".pyx") and "random" not in place for place in places):
                failures.append((name, k, repr(error)))
        except BaseException as error:
            shim.fc_disarm()
            failures.append((name, k, repr(error)))
        seen = shim.fc_disarm()
        if found is not None and not np.array_equal(found, expected):
            failures.append((name, k, "wrong after a failure that it did not report"))
        if seen < k:
            break
        if not np.array_equal(call(), expected):
            failures.append((name, k, "the next call is wrong"))
    total += k - 1
    found = None
    gc.collect()
    left = shim.fc_live() - before
    if left > 200_000:
        failures.append((name, k, f"{{left}} bytes are left"))
assert not failures, failures
assert total > 30, total
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    library = tmp_path_factory.mktemp("shim") / "allocations.so"
    source = Path(__file__).with_name("allocations.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.mark.by_day(share=1 / 3)
@glibc
@pytest.mark.skipif(
    int(np.__version__.split(".")[0]) < 2,
    reason="sums of NumPy 1.23 crash by themselves where memory is refused (einsum, all)",
)
@pytest.mark.parametrize(
    "sizes, N, norm",
    [([5, 9, 9, 3], 400, False), ([33, 40, 40, 7], 70, False), ([5, 9, 3], 60, True)],
    ids=["tall", "wide", "batch norm"],
)
def test_every_failed_allocation_raises_memory_error(sizes, N, norm, shim):
    """If any single allocation of half a kilobyte or more fails, MemoryError is raised and all
    objects stay usable.
    """
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM.format(sizes=sizes, N=N, norm=norm, share=1.3 if norm else 0.6),
        ],
        env=os.environ | {"LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
