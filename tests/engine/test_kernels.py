"""The matrix product, copies and packing of every kernel table that this CPU can run, at difficult
sizes, strides and addresses.
"""

import itertools
import mmap
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from fastcurv import _engine as engine
from fastcurv._engine import testing_hooks as hooks

from .. import nets

every_form = pytest.mark.parametrize("b_form", ["padded", "packed", "plain"])
LENGTHS = [*range(1, 18), 31, 33, 47, 48, 49, 63, 64, 65, 127, 129]
# including one more than a slice of 384 or 512 numbers
DEPTHS = [1, 2, 3, 5, 16, 127, 128, 129, 255, 256, 257, 385, 513, 600, 769]


def random_integers(rng, shape, dtype):
    """Return an array of random integers from -9 to 9, so small that every sum of their products is
    exact in any order.
    """
    return rng.integers(-9, 10, shape).astype(dtype)


# --- values


@every_form
def test_products_of_whole_numbers_are_exact_at_all_sizes(arch, dtype, b_form, rng):
    """Products of whole numbers are bitwise exact for rows, columns and depths around the size of
    every tile and slice.
    """
    sizes = [(17, 33, k) for k in DEPTHS] + [(13, 190, 20), (150, 70, 300)]
    for i, length in enumerate(LENGTHS):
        n, m = LENGTHS[(7 * i + 3) % len(LENGTHS)], LENGTHS[(11 * i + 5) % len(LENGTHS)]
        sizes.append((length, n, DEPTHS[(5 * i + 1) % len(DEPTHS)]))
        sizes.append((m, length, DEPTHS[(3 * i + 2) % len(DEPTHS)]))
    for m, n, k in sizes:
        A, B = random_integers(rng, (m, k), dtype), random_integers(rng, (k, n), dtype)
        got = hooks.multiply(A, B, arch=arch, b_form=b_form)
        assert np.array_equal(got, A.astype(float) @ B.astype(float)), (m, n, k)


@every_form
def test_two_terms_and_accumulation_do_not_depend_on_items(arch, dtype, b_form, rng):
    """C + A1 B1 + A2 B2 with terms of different depths is exact for whole numbers, whether it is
    computed as one item or as items shared by the threads. A plain B is contiguous in depth, as in
    the transposed layout.
    """
    shapes = [(1, 1, 1, 1), (5, 17, 3, 258), (13, 49, 129, 1), (65, 33, 300, 257)]
    shapes += zip(LENGTHS, LENGTHS[5:], LENGTHS[11:], [33] * 9)
    for m, n, k1, k2 in [*shapes, (257, 129, 64, 31), (300, 200, 10, 20)]:
        A1, A2 = random_integers(rng, (m, k1), dtype), random_integers(rng, (m, k2), dtype)
        B1, B2 = random_integers(rng, (k1, n), dtype), random_integers(rng, (k2, n), dtype)
        C, true = random_integers(rng, (m, n), dtype), A1.astype(float) @ B1 + A2.astype(float) @ B2
        if b_form == "plain":
            B1, B2 = np.asfortranarray(B1), np.asfortranarray(B2)
        for threads in (0, 1, 2, 3):
            options = {"arch": arch, "b_form": b_form, "threads": threads}
            assert np.array_equal(hooks.multiply(A1, B1, A2, B2, **options), true)
            assert np.array_equal(hooks.multiply(A1, B1, A2, B2, C, **options), true + C)


@every_form
def test_errors_stay_within_the_bound_for_any_order(arch, dtype, b_form, rng):
    """The bound |error| <= gamma(k) |A| |B| holds for any order of summation, with k roundings of
    products and k of sums (Higham 2002, 3.5).
    """
    unit = np.finfo(dtype).eps / 2
    for m, n, k in [(7, 19, 600), (33, 65, 257), (64, 48, 129), (3, 5, 5000)]:
        A = (rng.standard_normal((m, k)) * np.exp(rng.uniform(-6, 6, (m, k)))).astype(dtype)
        B = (rng.standard_normal((k, n)) * np.exp(rng.uniform(-6, 6, (k, n)))).astype(dtype)
        long = np.longdouble if dtype == "float64" else np.float64
        true = np.stack([(A.astype(long) * b).sum(1) for b in B.T.astype(long)], 1)
        gamma = (k + 1) * unit / (1 - (k + 1) * unit)
        for threads in (0, 2):
            got = hooks.multiply(A, B, arch=arch, b_form=b_form, threads=threads)
            assert np.all(np.abs(got - true) <= gamma * (np.abs(A) @ np.abs(B)) * (1 + 1e-6))


def test_transposed_products_equal_products_of_rows_bitwise(arch, dtype, rng):
    """A' B, whose items may pack A, is bitwise identical to the product with A' stored by rows, for
    all heights of items and tiles, and for any number of items and threads. Both are within
    gamma(k) |A'| |B| of the product in long double.
    """
    unit = np.finfo(dtype).eps / 2
    for m in [*range(1, 14), 61, 65, 66, 67, 70, 129, 133]:
        k, n = 64 + 97 * (m % 9), 33 + 31 * (m % 7)
        A, B = (rng.standard_normal((k, cols)).astype(dtype) for cols in (m, n))
        C = rng.standard_normal((m, n)).astype(dtype) if m % 2 else None
        rows = hooks.multiply(np.ascontiguousarray(A.T), B, C=C, arch=arch, threads=1)
        for threads in (0, 1, 2, 3):
            got = hooks.multiply(A.T, B, C=C, arch=arch, threads=threads)
            # OpenBLAS has other kernels for some small sizes if A is transposed.
            assert arch == "blas" or np.array_equal(got, rows), (m, n, k, threads)
        true = A.T.astype(np.longdouble) @ B.astype(np.longdouble)
        size, most = np.abs(A.T).astype(float) @ np.abs(B).astype(float), k + 1
        if C is not None:
            true, size, most = true + C, size + np.abs(C), most + 1
        assert np.all(np.abs(rows - true) <= most * unit / (1 - most * unit) * size), (m, n, k)


def test_products_in_one_item_equal_those_in_many_items_bitwise(arch, dtype, rng):
    """One item, which is computed some rows at a time if A exceeds the second-level cache, is
    bitwise identical to the product in many items, for any number of threads.
    """
    for m, n, k in [(401, 20, 391), (1025, 9, 65), (300, 211, 333)]:
        A, B = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n)))
        for b_form in ("padded", "packed", "plain"):
            one, *many = (
                hooks.multiply(A, B, arch=arch, b_form=b_form, threads=threads)
                for threads in (0, 1, 2, 3, 5)
            )
            assert all(np.array_equal(one, other) for other in many), (m, n, k, b_form)


# --- memory layout of operands


def with_memory_layout(array, how):
    """Return `array` with equal entries but the strides or the alignment that the name `how`
    describes. Other names return the array itself.
    """
    if how == "F":
        return np.asfortranarray(array)
    if how == "rows apart":
        return np.repeat(array, 3, axis=0)[::3]
    if how == "upside down":
        return array[::-1].copy()[::-1]
    if how == "inside":
        frame = np.full((array.shape[0] + 2, array.shape[1] + 5), np.nan, array.dtype)
        frame[1:-1, 3:-2] = array
        return frame[1:-1, 3:-2]
    if how == "every other column":
        return np.repeat(array, 2, axis=1)[:, ::2]
    if how == "mirrored":
        return array[:, ::-1].copy()[:, ::-1]
    if how == "off by one":
        return np.r_[array.ravel()[:1], array.ravel()][1:].reshape(array.shape)
    return array


def test_products_accept_operands_of_any_strides(arch, dtype, rng):
    """Products are exact for A and an unpacked B of any strides. BLAS is tested only with matrices
    that have a stride of one number along rows or columns, as in all passes.
    """
    hows = ["C", "F", "rows apart", "inside", "off by one"]
    if arch != "blas":
        hows += ["every other column", "mirrored", "upside down"]
    for a_how, b_how in itertools.product(hows, hows):
        m, n, k = rng.integers(1, 40, 3)
        A, B = random_integers(rng, (m, k), dtype), random_integers(rng, (k, n), dtype)
        got = hooks.multiply(
            with_memory_layout(A, a_how), with_memory_layout(B, b_how), arch=arch, b_form="plain"
        )
        assert np.array_equal(got, A @ B), (a_how, b_how, m, n, k)
        for b_form in ("padded", "packed"):
            got = hooks.multiply(with_memory_layout(A, a_how), B, arch=arch, b_form=b_form)
            assert np.array_equal(got, A @ B), (a_how, b_form, m, n, k)


def test_padded_copies_and_packing_keep_all_numbers(arch, dtype, rng):
    """A padded copy equals the matrix with zeros around it, and packed panels contain all its
    numbers.
    """
    hows = ["C", "F", "rows apart", "every other column", "inside", "mirrored", "upside down"]
    for rows, cols in itertools.product([1, 3, 8, 17, 64, 65], [*nets.LENGTHS, 5, 130]):
        array = rng.standard_normal((rows, cols)).astype(dtype)
        for how in hows:
            there = with_memory_layout(array, how)
            copied = hooks.copy_matrix(arch, there)
            assert np.array_equal(copied[:, :cols], array) and not copied[:, cols:].any()
            for far in (False, True):
                panels = hooks.copy_matrix(arch, there, True, far)
                flat = panels.transpose(1, 0, 2).reshape(rows, -1)
                assert np.array_equal(flat[:, :cols], array) and not flat[:, cols:].any()


def test_strides_beyond_32_bits_are_multiplied_without_blas(dtype, rng):
    """Matrices whose rows are more than 2^31 numbers apart, beyond the strides of BLAS, are
    multiplied without BLAS and exactly.
    """
    apart = 2**31 + 16
    size = np.dtype(dtype).itemsize
    no_reserve = 0x4000
    try:
        area = mmap.mmap(-1, 3 * apart * size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
    except OSError as error:
        pytest.skip(f"no address space: {error}")
    A = np.frombuffer(area, dtype)[: 3 * apart].reshape(3, apart)[:, :5]
    A[...] = random_integers(rng, (3, 5), dtype)
    B, C = random_integers(rng, (5, 7), dtype), random_integers(rng, (3, 7), dtype)
    assert np.array_equal(hooks.multiply(A, B, A, B, C, arch="blas"), C + 2 * (A @ B))
    assert np.array_equal(hooks.multiply(A.T[:3], A, arch="blas"), A.T[:3] @ np.array(A))


# --- NaN, infinity and extreme numbers


@every_form
def test_nan_and_infinity_spread_to_their_row_or_column_only(arch, dtype, b_form, rng):
    """A NaN in A affects only its row of the product, and a NaN in B only its column. Infinity
    times zero gives NaN.
    """
    m, n, k = 19, 37, 140
    A, B = random_integers(rng, (m, k), dtype), random_integers(rng, (k, n), dtype)
    true = A @ B
    for what in (np.nan, np.inf):
        for i, l in ((0, 0), (m - 1, k - 1), (7, 128)):
            spoilt = A.copy()
            spoilt[i, l] = what
            with np.errstate(invalid="ignore"):
                got = hooks.multiply(spoilt, B, arch=arch, b_form=b_form)
                expected = spoilt @ B
            assert np.array_equal(np.delete(got, i, 0), np.delete(true, i, 0))
            assert np.array_equal(got[i], expected[i], equal_nan=True)
            assert not np.isfinite(got[i]).any()
        for l, j in ((0, 0), (k - 1, n - 1), (128, 16)):
            spoilt = B.copy()
            spoilt[l, j] = what
            got = hooks.multiply(A, spoilt, arch=arch, b_form=b_form)
            assert np.array_equal(np.delete(got, j, 1), np.delete(true, j, 1))
            assert not np.isfinite(got[A[:, l] != 0, j]).any()
            if arch != "blas":  # a BLAS may skip zeros of A
                assert np.isnan(got[A[:, l] == 0, j]).all()


def test_subnormal_and_largest_products_are_exact(arch, dtype, rng):
    """Subnormal products are kept, and sums reach the largest finite numbers without intermediate
    overflow.
    """
    info = np.finfo(dtype)
    least, quarter = info.smallest_subnormal, np.full((1, 17), 0.25, dtype)
    A = np.full((9, 1), least * 8, dtype)
    assert np.all(hooks.multiply(A, quarter, arch=arch) == least * 2)
    A = np.full((9, 2), info.max / 4, dtype)
    assert np.all(hooks.multiply(A, np.full((2, 17), 2, dtype), arch=arch) == info.max)


# --- without Python


HERE = Path(__file__).resolve().parent
COMPILER = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


@pytest.mark.skipif(
    os.name == "nt" or not shutil.which(COMPILER[0]) or not (HERE.parents[1] / "src").exists(),
    reason="there is no C compiler, or there are no sources",
)
@pytest.mark.parametrize(
    "archs",
    [
        pytest.param(engine.available_archs()[:1], id="first"),
        pytest.param(engine.available_archs(), id="all", marks=pytest.mark.nightly),
    ],
)
def test_selftest_program_passes(tmp_path, python, archs):
    """The program tests/engine/selftest.c, which also runs under emulation for kernels that this
    CPU cannot run, passes with the extension's own tables.
    """
    library = tmp_path / "selftest.so"
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    if sys.platform == "darwin":
        flags += ["-undefined", "dynamic_lookup"]
    done = subprocess.run(
        [*COMPILER, *flags, f"-I{HERE.parents[1] / 'src' / 'kernels'}", "-o", str(library)]
        + [str(HERE / "selftest.c"), "-lm"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = python(f"""
import ctypes
from fastcurv._engine import core
tables = ctypes.CDLL(core.__file__, ctypes.RTLD_GLOBAL)
arguments = [b"selftest", *(name.encode() for name in {list(archs)!r})]
argv = (ctypes.c_char_p * len(arguments))(*arguments)
raise SystemExit(ctypes.CDLL({str(library)!r}).main(len(arguments), argv))
""").stdout
    assert " 0 failed" in said.splitlines()[-1]
    tables = {line.split()[0] for line in said.splitlines()[:-1]}
    assert tables == set(archs) | {"blas"}


# --- the machine's peak


def test_measured_fma_peak_is_positive(arch, dtype):
    assert 1e8 < engine.measure_fma_peak(dtype, 1, arch, rounds=2) < 1e13
