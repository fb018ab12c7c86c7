"""Selection of the kernel table for this CPU: the tables, their order, the one in use, and the
order of their sums.

SciPy's BLAS is passed to the table that multiplies by BLAS, so that the engine links against none.
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


cdef const fc_table *table_named(str name) except NULL:
    cdef const fc_table *table = fc_arch_find(name.encode())
    if table == NULL:
        raise ValueError(
            f"FASTCURV_ARCH is {name!r}; this CPU can run one of: {', '.join(available_archs())}"
        )
    return table


cdef const fc_table *chosen = table_named(os.environ.get("FASTCURV_ARCH") or available_archs()[0])


cdef const fc_table *table_chosen() noexcept:
    return chosen


def chosen_arch():
    """Return the name of the kernel table in use."""
    return chosen.name.decode()


def set_arch(str name):
    """Use another kernel table for plans made from now on, for tests and benchmarks. Return the
    name of the previous one.
    """
    global chosen
    before = chosen_arch()
    chosen = table_named(name)
    return before


def summation(arch=None, dtype="float64"):
    """Return how the kernels order their sums: the facts on which a count of roundings is based.

    Parameters
    ----------
    arch : str, optional
        A kernel table; by default the one in use.
    dtype : "float32" or "float64"

    Returns
    -------
    dict
        A chain is a sequence of additions to one accumulator. A chain of L numbers takes each of
        them through at most L roundings, that of its own product included (with a fused
        multiply-add or without). A chain that continues from an existing number takes the terms of
        that number through up to L + 1 further roundings. The keys are:

        slice
            Number of products in one chain of a matrix product; both terms of a product share it. A
            term of depth k is cut evenly into ``ceil(k / slice)`` slices, and a term that still
            fits joins the chain of the one before it. Each chain is summed by itself and added to
            the others in order, with one rounding each. So a product of terms of depths k_1, k_2
            takes its numbers through at most ``min(k_1 + k_2, slice) + sum of ceil(k_i / slice)``
            roundings, and one more if it is added to C. 0: one chain of any length in any order,
            which gives ``k_1 + k_2 + 1``.
        from_c
            True if the chain of an accumulating product (sums over panels and chunks of rows) may
            continue from C, so that it is as long as all rows together; else C is added to the
            chain's own sum.
        items_of, item_rows
            If rows run layer-parallel, a product's m rows come in ``ceil(m / items_of)`` items or
            fewer, each of at most item_rows rows: the column sums of a bias are one chain per item,
            then the items' sums are added in order. 0: one item. A panel is always one item.
        block_rows
            Rows of a block of the loss's sweep in layer-parallel plans: the last layer's column
            sums, the loss's values, the top term of quadratic forms, and all sums of batch
            normalisation are computed by blocks, then added over the blocks in order. The sums of
            batch normalisation are in float64, as are the loss's values beyond one row.
        lanes
            Sums along a row of cols numbers (loss rows, their derivatives, the empirical Fisher)
            are `lanes` chains of ``ceil(cols / lanes)`` numbers, joined in ``log2(lanes)``
            roundings. An epilogue's total over rows x cols numbers has chains of ``rows *
            ceil(cols / lanes)`` numbers and float64 from there on; rows are at most those of a
            panel (panel-parallel), or of an item or block (layer-parallel; BLAS: all rows). In the
            transposed layout of a panel-parallel plan a total's rows are the layer's units and its
            cols at most the panel's samples (for the top term, a block's); column sums of biases
            are `lanes` chains, too.
        exact_totals
            True if such sums and totals are in float64 whatever the dtype.
        panel
            Numbers of an inner product (projections, norms of rows) that are summed in the dtype
            itself, as `lanes` chains of ``ceil(panel / lanes)``; panels are added in float64. 0:
            all of it is in float64.

    Examples
    --------
    >>> summation("reference")["slice"]
    0
    """
    cdef const fc_table *K = table_named(arch or chosen_arch())
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
        "block_rows": BLOCK_ROWS,
        "lanes": s.lanes,
        "exact_totals": bool(s.exact_totals),
        "panel": s.panel,
    }


# --- peak rate of the CPU -------------------------------------------------------------------------

cdef struct Peak:
    const fc_table *K
    long count
    double flops[FC_MAX_THREADS]
    char sink[FC_MAX_THREADS][256]


cdef void peak_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    cdef Peak *c = <Peak *>context
    c.flops[part] = c.K.peak(c.count, &c.sink[part][0])


def fma_peak(dtype="float32", int threads=1, arch=None, int rounds=20):
    """Measure the flops per second of multiply-adds on registers, as the best of `rounds` runs of a
    few milliseconds.
    """
    cdef const fc_table *K = chosen if arch is None else table_named(arch)
    cdef Peak c
    threads = max(1, min(threads, FC_MAX_THREADS))
    memset(&c, 0, sizeof(c))
    c.K, c.count = &K[np.dtype(dtype).itemsize == 8], 400000
    cdef double best = 0, begin, taken
    cdef int i, _round
    for _round in range(rounds):
        begin = time.perf_counter()
        with nogil:
            fc_team_run(threads, threads, peak_part, &c)
        taken = time.perf_counter() - begin
        best = max(best, sum([c.flops[i] for i in range(threads)]) / taken)
    return best
