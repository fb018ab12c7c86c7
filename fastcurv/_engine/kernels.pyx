"""Selection of the kernel table for this CPU, and a description of the order in which its kernels
sum.

SciPy's BLAS functions are passed to the BLAS kernel table at import, so that the extension module
is not linked against a BLAS library.
"""
import os
import time

import numpy as np

from libc.string cimport memset
from scipy.linalg.cython_blas cimport dgemm, sgemm


cdef extern from "arch.h" nogil:
    ctypedef void (*fc_gemm_f32)(
        char *, char *, int *, int *, int *, float *, float *, int *, float *, int *, float *,
        float *, int *
    ) noexcept
    ctypedef void (*fc_gemm_f64)(
        char *, char *, int *, int *, int *, double *, double *, int *, double *, int *, double *,
        double *, int *
    ) noexcept
    void fc_arch_init(fc_gemm_f32, fc_gemm_f64)
    int fc_arch_count()
    const fc_table *fc_arch_at(int)
    const fc_table *fc_arch_find(const char *)

ACTIVATIONS = {fc_activation_name(i).decode(): i for i in range(FC_N_ACTIVATIONS)}
LOSSES = {fc_loss_name(i).decode(): i for i in range(FC_N_LOSSES)}

fc_arch_init(<fc_gemm_f32>sgemm, <fc_gemm_f64>dgemm)


def available_archs():
    """Return the names of the kernel tables that this CPU can run, best first."""
    return tuple(fc_arch_at(i).name.decode() for i in range(fc_arch_count()))


cdef const fc_table *find_kernel_table(str name) except NULL:
    """Return the kernel table `name`. Raise ValueError if this CPU cannot run it."""
    cdef const fc_table *table = fc_arch_find(name.encode())
    if table == NULL:
        raise ValueError(
            f"FASTCURV_ARCH must be one of {', '.join(available_archs())} on this CPU, "
            f"got {name!r}."
        )
    return table


cdef const fc_table *chosen = find_kernel_table(
    os.environ.get("FASTCURV_ARCH") or available_archs()[0]
)


cdef const fc_table *current_kernel_table() noexcept:
    """Return the kernel table in use."""
    return chosen


def chosen_arch():
    """Return the name of the kernel table in use."""
    return chosen.name.decode()


def set_arch(str name):
    """Use the kernel table `name` in later plans, for tests and benchmarks. Return the name of the
    previous table.
    """
    global chosen
    before = chosen_arch()
    chosen = find_kernel_table(name)
    return before


def summation_order(arch=None, dtype="float64"):
    """Return the order of summation of a kernel table, from which rounding bounds are derived.

    A chain is a sequence of additions to one accumulator. In a chain of L numbers, each number
    passes through at most L roundings, including that of its own product (with or without fused
    multiply-add). If a chain starts from an existing number, the terms of that number pass through
    up to L + 1 further roundings.

    Parameters
    ----------
    arch : str, optional
        Name of a kernel table; by default the one in use.
    dtype : "float32" or "float64"

    Returns
    -------
    dict
        With the keys:

        slice
            Maximum number of products in one chain of a matrix product, both of its terms together.
            A term of depth k is cut evenly into ``ceil(k / slice)`` slices. A term that still fits
            joins the chain of the previous term. Each chain is summed separately and then added to
            the others in order, with one rounding each. In a product of terms of depths k_1 and
            k_2, a number therefore passes through at most ``min(k_1 + k_2, slice) + sum of ceil(k_i
            / slice)`` roundings, and one more if the product is added to C. 0: a product is one
            chain of any length in any order, with ``k_1 + k_2 + 1`` roundings.
        from_c
            True if the chain of an accumulating product (a sum over panels and chunks of rows) may
            start from C, so that its length is the number of all rows. False if C is added to the
            sum of the chain.
        items_of, item_rows
            A layer-parallel product with m rows is computed in at most ``ceil(m / items_of)`` items
            of at most item_rows rows. The column sums for a bias are one chain per item, and the
            sums of the items are added in order. 0: one item. A panel is always one item.
        block_rows
            Rows per block when layer-parallel plans sweep over rows. Column sums of the output
            layer, loss values, the output layer's term of quadratic forms, and all sums of batch
            normalisation are computed per block and then added over the blocks in order. Sums of
            batch normalisation, and sums of the loss over rows, are in float64.
        lanes
            A sum along a row of cols numbers (loss rows, their derivatives, the empirical Fisher
            matrix) consists of `lanes` chains of ``ceil(cols / lanes)`` numbers, which are joined
            with ``log2(lanes)`` roundings. An epilogue's total over rows x cols numbers consists of
            chains of ``rows * ceil(cols / lanes)`` numbers, which are joined in float64. There,
            rows is at most the rows of a panel (panel-parallel) or of an item or block
            (layer-parallel; BLAS: all rows). In the transposed layout of a panel-parallel plan,
            rows is the number of units of the layer, and cols at most the number of samples of the
            panel (of a block for the output layer's term); column sums for biases are `lanes`
            chains too.
        totals_in_double
            True if sums along a row and totals of epilogues are in float64 for either dtype.
        panel
            Length of the parts of an inner product (projections, norms of rows) that are summed in
            the dtype itself, as `lanes` chains of ``ceil(panel / lanes)`` numbers; the parts are
            added in float64. 0: inner products are summed in float64 throughout.

    Examples
    --------
    >>> summation_order("reference")["slice"]
    0
    """
    cdef const fc_table *K = find_kernel_table(arch or chosen_arch())
    name = np.dtype(dtype).name
    if name not in ("float32", "float64"):
        raise ValueError(f"dtype must be float32 or float64, got {name}.")
    cdef const fc_sums *s = &K[name == "float64"].sums
    return {
        "arch": K.name.decode(),
        "dtype": name,
        "slice": s.slice,
        "from_c": bool(s.from_c),
        "items_of": s.items_of,
        "item_rows": s.item_rows,
        "block_rows": SWEEP_BLOCK_ROWS,
        "lanes": s.lanes,
        "totals_in_double": bool(s.totals_in_double),
        "panel": s.panel,
    }


# --- peak rate of the CPU -------------------------------------------------------------------------

cdef struct Peak:
    const fc_table *K
    long count                  # multiply-adds per chain
    double flops[FC_MAX_THREADS]  # per thread: flops performed
    char sink[FC_MAX_THREADS][256]  # per thread: argument of the kernel `peak`


cdef void run_peak_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Run multiply-adds on one thread, as one part of a job of the thread team."""
    cdef Peak *c = <Peak *>context
    c.flops[part] = c.K.peak(c.count, &c.sink[part][0])


def measure_fma_peak(dtype="float32", int threads=1, arch=None, int rounds=20):
    """Measure the peak rate of multiply-adds in registers, in flops per second. The result is the
    best of `rounds` runs of a few milliseconds each.
    """
    cdef const fc_table *K = chosen if arch is None else find_kernel_table(arch)
    cdef Peak c
    threads = max(1, min(threads, FC_MAX_THREADS))
    memset(&c, 0, sizeof(c))
    c.K, c.count = &K[np.dtype(dtype).itemsize == 8], 400000
    cdef double best = 0, begin, taken
    cdef int i, _round
    for _round in range(rounds):
        begin = time.perf_counter()
        with nogil:
            fc_team_run(threads, threads, run_peak_part, &c)
        taken = time.perf_counter() - begin
        best = max(best, sum([c.flops[i] for i in range(threads)]) / taken)
    return best
