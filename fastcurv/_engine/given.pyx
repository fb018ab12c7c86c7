"""Losses given by a function of NumPy: between forward and backward of a chunk the function is
asked for the loss of its rows and its derivatives, which lie where the kernels of other losses
leave them. Products know no difference, but for outputs that are coupled by a second derivative,
each row a matrix.
"""
import numpy as np


cdef enum:
    MOST_COUPLED = 64           # outputs, as `fastcurv.structure.losses` has it
    TOGETHER = 32               # columns


cdef void given_rows(PlanS *P, Py_ssize_t r0, Py_ssize_t rows) noexcept with gil:
    """Loss, delta and h of the chunk at hand; NaN where the function raises, see `Plan.tell`."""
    cdef Plan plan = <Plan>P.given
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef Py_ssize_t size = P.K.real_bytes
    P.given_value = float("nan")
    if plan.failed is not None:
        return
    try:
        z = np.empty((rows, y.m), plan.dtype)
        take_rows(P, y, y.a, r0, <char *>pointer(z) - r0 * y.m * size)
        here = slice(r0, r0 + rows)
        weight = plan.rows.weight
        total, delta, h = plan.given(
            z, plan.rows.y[here], None if weight is None else weight[here]
        )
        P.given_value = total
        store_rows(P, <char *>P.loss.delta, y.m, y.ldm, rows, pointer(delta))
        store_rows(P, <char *>P.loss.h, h[0].size, P.loss.ldh, rows, pointer(h))
    except BaseException as error:
        plan.failed = error


cdef void store_rows(
    PlanS *P, char *state, Py_ssize_t m, Py_ssize_t ld, Py_ssize_t rows, char *source
) noexcept nogil:
    """source (rows, m) into a matrix of the last layer's state; across, 0 past the last sample."""
    cdef Py_ssize_t panel, first, n, j, size = P.K.real_bytes
    cdef char *to
    if not P.across:
        P.K.copy(rows, m, source, m, 1, state, ld)
        return
    for panel in range(panels_of(P, rows)):
        first = first_of(P, rows, panel)
        n = first_of(P, rows, panel + 1) - first
        to = at(P, state, state_of(P, panel), ld)
        P.K.copy(m, n, source + first * m * size, 1, m, to, P.across)
        for j in range(m):
            memset(to + (j * P.across + n) * size, 0, (whole_lines(P, n) - n) * size)


ctypedef fused number:
    float
    double


cdef void couple(const number *h, Py_ssize_t ldh, number *x, Py_ssize_t ldx, Py_ssize_t rows,
                 Py_ssize_t m) noexcept nogil:
    """x[i] = h[i] x[i] for each row i, h[i] (m, m)."""
    cdef double found[MOST_COUPLED]
    cdef Py_ssize_t i, j, k
    for i in range(rows):
        for j in range(m):
            found[j] = 0
            for k in range(m):
                found[j] += <double>h[i * ldh + j * m + k] * x[i * ldx + k]
        for j in range(m):
            x[i * ldx + j] = <number>found[j]


cdef void couple_across(const number *h, Py_ssize_t ldh, number *x, Py_ssize_t ldx, Py_ssize_t rows,
                        Py_ssize_t m) noexcept nogil:
    """The same for columns, some together, so that what a compiler makes vectors of lies side by
    side.
    """
    cdef double found[MOST_COUPLED * TOGETHER]
    cdef Py_ssize_t first = 0, i, j, k, count
    cdef double *to
    cdef const number *hi
    cdef const number *xi
    while first < rows:
        count = min(<Py_ssize_t>TOGETHER, rows - first)
        for j in range(m):
            to = found + j * TOGETHER
            memset(to, 0, count * sizeof(double))
            for k in range(m):
                hi, xi = h + (j * m + k) * ldh + first, x + k * ldx + first
                for i in range(count):
                    to[i] += <double>hi[i] * xi[i]
        for j in range(m):
            for i in range(count):
                x[j * ldx + first + i] = <number>found[j * TOGETHER + i]
        first += TOGETHER


cdef void r_coupled(
    PlanS *P, const fc_loss_rows *here, Py_ssize_t rows, char *rz, Py_ssize_t ld
) noexcept nogil:
    """rdelta = (d2 loss / dz2) rz in rz's place, `ld` as in the pass; across, 0 past the last
    sample.
    """
    cdef Py_ssize_t j, size = P.K.real_bytes
    if P.K.real_bytes == 8 and P.across:
        couple_across[double](<const double *>here.h, P.across, <double *>rz, ld, rows, P.d_out)
    elif P.across:
        couple_across[float](<const float *>here.h, P.across, <float *>rz, ld, rows, P.d_out)
    elif P.K.real_bytes == 8:
        couple[double](<const double *>here.h, here.ldh, <double *>rz, ld, rows, P.d_out)
    else:
        couple[float](<const float *>here.h, here.ldh, <float *>rz, ld, rows, P.d_out)
    for j in range(P.d_out if P.across else 0):
        memset(rz + (j * ld + rows) * size, 0, (whole_lines(P, rows) - rows) * size)
