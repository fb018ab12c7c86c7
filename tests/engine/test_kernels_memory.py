"""Kernels and passes access no memory outside their arrays, tested next to protected pages."""

import numpy as np

from fastcurv._engine import testing_hooks as hooks

from .. import nets
from .test_kernels import every_form, random_integers


class InPlace(np.ndarray):
    """An array whose `copy` returns the array itself, so that the test hook writes in place."""

    def copy(self, order="C"):
        return self


@every_form
def test_products_write_nothing_outside_c(arch, dtype, b_form, rng):
    """Products write nothing before or after an output C without padding, and incomplete tiles do
    not write into the next row.
    """
    for m, n in [(1, 1), (3, 5), (7, 17), (13, 31), (6, 33), (9, 63), (12, 65), (5, 129), (33, 47)]:
        k = 20
        A, B = random_integers(rng, (m, k), dtype), random_integers(rng, (k, n), dtype)
        for shift in (0, 1, 3):
            buffer = np.full(64 + m * n + 64, 77, dtype)
            C = buffer[60 + shift : 60 + shift + m * n].reshape(m, n)
            C[...] = before = random_integers(rng, (m, n), dtype)
            for threads in (0, 2):
                C[...] = before
                hooks.multiply(A, B, C=C.view(InPlace), arch=arch, b_form=b_form, threads=threads)
                assert np.array_equal(C, before + A @ B)
                assert np.all(buffer[: 60 + shift] == 77)
                assert np.all(buffer[60 + shift + m * n :] == 77)


# --- reading past the end


GUARD = """
import ctypes, mmap, sys
import numpy as np
from fastcurv import _engine as engine
from fastcurv._engine import testing_hooks as hooks
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
keep = []
def guarded(array, order="C", shift=0):
    # the same numbers, the last of them `shift` numbers before a page that may not be read
    page = mmap.PAGESIZE
    n_bytes = -(-(array.nbytes + shift * array.itemsize) // page) * page
    area = mmap.mmap(-1, n_bytes + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    assert libc.mprotect(start + n_bytes, page, 0) == 0
    keep.append(area)
    first = n_bytes - array.nbytes - shift * array.itemsize
    bare = (ctypes.c_char * n_bytes).from_buffer(area)   # no mmap, whose rows would be copied
    place = np.frombuffer(bare, array.dtype, array.size, first)
    there = place.reshape(array.shape, order=order)
    there[...] = array
    return there
rng = np.random.default_rng(0)
integers = lambda m, n, dtype: rng.integers(-9, 10, (m, n)).astype(dtype)
"""


def test_guard_page_ends_the_process(python):
    """Reading one number past a guarded array ends the process, so the other tests with guarded
    arrays can fail.
    """
    done = python(
        GUARD
        + """
there = guarded(np.ones((3, 5)))
np.lib.stride_tricks.as_strided(there, (16,), (8,))[15]
""",
        check=False,
    )
    assert done.returncode != 0 and "Traceback" not in done.stderr


def test_products_read_nothing_beyond_their_operands(arch, python):
    """Operands A, unpacked B and C that end at a protected page are read up to their end and no
    further, for every shape of tile and edge.
    """
    python(
        GUARD
        + f"""
class InPlace(np.ndarray):
    def copy(self, order="C"):
        return self
lengths = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 47, 49, 64, 65]
for dtype in (np.float32, np.float64):
    for i, m in enumerate(lengths):
        n, k = lengths[(5 * i + 3) % 16], lengths[(7 * i + 2) % 16]
        A, B, C = integers(m, k, dtype), integers(k, n, dtype), integers(m, n, dtype)
        for a_order in "CF":
            for b_order in "CF":
                a, b, c = guarded(A, a_order), guarded(B, b_order), guarded(C)
                hooks.multiply(a, b, C=c.view(InPlace), arch={arch!r}, b_form="plain")
                assert np.array_equal(c, C + A @ B)
                for form in ("padded", "packed"):
                    assert np.array_equal(hooks.multiply(a, b, arch={arch!r}, b_form=form), A @ B)
        engine.set_arch({arch!r})
        for order in "CF":
            assert np.array_equal(hooks.copy_matrix({arch!r}, guarded(A, order))[:, :k], A)
            hooks.copy_matrix({arch!r}, guarded(A, order), True)
            across = np.empty((k, m), dtype)
            assert np.array_equal(engine.copy_transpose(guarded(A, order), across), A.T)
"""
    )


def test_losses_read_nothing_beyond_their_arrays(arch, python):
    """Outputs, targets and weights that end at a protected page are read up to their end and no
    further, for every loss and length.
    """
    python(
        GUARD
        + f"""
for dtype in ("float32", "float64"):
    for kind in {nets.KERNELS!r}:
        for cols in {nets.LENGTHS!r}:
            z, y = rng.standard_normal((2, 3, cols)).astype(dtype)
            y = np.abs(y) / 4
            given = z, y, rng.random(3).astype(dtype)
            there = hooks.evaluate_loss({arch!r}, kind, *map(guarded, given))
            for got, want in zip(there, hooks.evaluate_loss({arch!r}, kind, *given)):
                assert np.array_equal(got, want), (kind, cols)
"""
    )


def test_passes_access_nothing_beyond_their_arrays(arch, python):
    """Passes access nothing beyond the arrays of data, theta, v and out, which end at a protected
    page, for every operator, panel-parallel and layer-parallel, with and without chunks.
    """
    python(
        GUARD
        + f"""
import fastcurv as fc
engine.set_arch({arch!r})
for dtype in ("float32", "float64"):
    for sizes, N, loss in (([3, 5, 2], 7, "cross_entropy"), ([17, 33, 9, 5], 65, "mse"),
                           ([1, 1, 1], 1, "binary_cross_entropy"),
                           ([9, 15, 10], 33, "cross_entropy"), ([129, 259, 131, 31], 9, "mse"),
                           ([129, 65, 31], 3, "mse"), ([40, 33, 97], 2, "mse")):
        model = fc.MLP(sizes, "tanh", bias=N != 2, dtype=dtype)
        X = guarded(rng.standard_normal((N, sizes[0])).astype(dtype), "CF"[N % 2])
        draw = rng.random if loss == "binary_cross_entropy" else rng.standard_normal
        y = draw((N, sizes[-1])).astype(dtype)
        if loss == "cross_entropy":
            y = rng.integers(sizes[-1], size=N).astype(np.int32)
        elif loss == "binary_cross_entropy":
            y = rng.random((N, sizes[-1])).astype(dtype)
        y, w = guarded(y), guarded(rng.random(N).astype(dtype))
        theta = guarded(model.init(rng=0))
        v = guarded(rng.standard_normal(model.n_params).astype(dtype))
        out = guarded(np.zeros(model.n_params, dtype))
        Vt = guarded(np.stack([v, v, v]))
        for memory in (None, 1):
            ob = fc.Objective(model, X, y, loss, sample_weight=w, memory=memory)
            assert np.shares_memory(ob.X, X)
            if memory:
                try:
                    ob.hessian(theta)
                except ValueError as error:
                    memory = int(str(error).split("at least ")[1].split()[0]) * 5 // 4
                    ob = fc.Objective(model, X, y, loss, sample_weight=w, memory=memory)
            H, J = ob.hessian(theta), ob.jacobian(theta)
            H.product(v, out=out)
            assert np.isfinite(out).all() and np.array_equal((H @ Vt.T)[:, 2], out)
            H.quadratic_form(v), ob.ggn(theta).product(v, out=out)
            ob.empirical_fisher(theta).product(v, out=out)
            J.T @ guarded(J @ v), ob.value_and_gradient(theta), model.predict(theta, X)
"""
    )
