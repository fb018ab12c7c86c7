"""Rows of the Jacobian of the outputs with respect to the parameters, as dense matrices.

One backward pass per sample propagates all outputs at once. Let D (d_out, m) be the derivatives of
the outputs with respect to z of a layer, and E those with respect to its output,

    D = I in the output layer,    E_below = D W [+ E],    D_below = E_below * phi'

where E is added for residual layers. With a the input of the layer, the row of output c has the
entries ``D[c, i] a[k]`` for ``W[i, k]`` and ``D[c, i]`` for ``b[i]``. Each element is a single sum
in a fixed order, so rows are bitwise independent of other rows and of the number of threads. The
computed rows are the only large matrix in memory.
"""
import numpy as np

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset


cdef class RowJacobian:
    """The state at the theta of a plan without batch normalisation, from which the rows of the
    Jacobian for any block of samples are computed.
    """
    cdef Plan plan
    cdef list kept              # arrays whose memory the pointers refer to
    cdef const char **a         # per layer: its input (N, k)
    # per hidden layer: phi' (N, m), or NULL if phi' is 1 or depends on the sign of a
    cdef const char **p
    cdef Py_ssize_t widest

    def __cinit__(self, Plan plan):
        cdef PlanS *P = &plan.P
        cdef Py_ssize_t l
        self.plan, self.widest = plan, 1
        self.a = <const char **>malloc(2 * P.n_layers * sizeof(char *))
        if self.a == NULL:
            raise MemoryError("Not enough memory for a list of matrices.")
        self.p = self.a + P.n_layers
        self.kept = [np.ascontiguousarray(plan.rows.X)]
        out = []
        for l in range(P.n_layers):
            y = &P.layer[l]
            self.widest = max(self.widest, y.m, y.k)
            hidden = l < P.n_layers - 1
            for there in (hidden, hidden and stores_slopes(y), False, False):
                out.append(np.empty((P.N, y.m), plan.dtype) if there else None)
        plan.copy_states([*out, None, None], False)
        for l in range(P.n_layers):
            self.a[l] = pointer(self.kept[len(self.kept) - 1])
            self.p[l] = NULL
            if l < P.n_layers - 1:
                if out[4 * l + 1] is not None:
                    self.kept.insert(0, out[4 * l + 1])
                    self.p[l] = pointer(out[4 * l + 1])
                self.kept.append(out[4 * l])

    def __dealloc__(self):
        free(self.a)

    def write_rows(self, Py_ssize_t first, Py_ssize_t count, out):
        """Write the rows of the samples [first, first + count) to `out` (count * d_out, n),
        contiguous and of the plan's dtype.
        """
        cdef PlanS *P = &self.plan.P
        cdef fc_watch before
        cdef bint wide = P.K.real_bytes == 8
        shape = count * P.d_out, P.n
        if first < 0 or count < 0 or first + count > P.N:
            raise ValueError(f"rows must lie in 0 to {P.N}, got {first} to {first + count}.")
        if out.shape != shape or out.dtype != self.plan.dtype or not out.flags.carray:
            raise ValueError(
                f"out must be C-ordered {self.plan.dtype} of shape {shape}, got {out.dtype} of "
                f"shape {out.shape}."
            )
        # Buffers for D and E of one sample.
        room = np.empty((2, P.d_out, self.widest), self.plan.dtype)
        cdef char *at_ = pointer(room)
        cdef char *to = pointer(out)
        with self.plan.lock, nogil:
            before = begin_signal_watch()
            if wide:
                write_jacobian_rows[double](
                    P, self.a, self.p, first, count, <double *>at_, self.widest, <double *>to
                )
            else:
                write_jacobian_rows[float](
                    P, self.a, self.p, first, count, <float *>at_, self.widest, <float *>to
                )
            self.plan.end_watch(before)


cdef void write_jacobian_rows(
    PlanS *P, const char **a_, const char **p_, Py_ssize_t first, Py_ssize_t count, real *D,
    Py_ssize_t ld, real *out
) noexcept nogil:
    """Write the rows of `count` samples to `out`. D is a workspace of 2 d_out ld elements, where ld
    is the width of the widest layer.
    """
    cdef real *E = D + P.d_out * ld
    cdef const real *p
    cdef Py_ssize_t s, l
    for s in range(first, first + count):
        if (s - first) % 64 == 0 and fc_watch_poll():
            return
        for l in range(P.n_layers - 1, -1, -1):
            if l == P.n_layers - 1:
                write_output_layer_columns(
                    P, &P.layer[l], <const real *>a_[l] + s * P.layer[l].k, out
                )
            else:
                write_hidden_layer_columns(
                    P, &P.layer[l], <const real *>a_[l] + s * P.layer[l].k, D, ld, out
                )
            if l:
                p = <const real *>p_[l - 1]
                if p != NULL:
                    p += s * P.layer[l].k
                propagate_to_layer_below(
                    P, l, <const real *>a_[l] + s * P.layer[l].k, p, D, E, ld
                )
        out += P.d_out * P.n


cdef inline void write_output_layer_columns(
    PlanS *P, Layer *y, const real *a, real *out
) noexcept nogil:
    """Write the part of a sample's rows that belongs to the output layer, whose input is a. Output
    c depends only on row c of W.
    """
    cdef Py_ssize_t c
    for c in range(P.d_out):
        memset(out + c * P.n + y.w, 0, y.m * y.k * sizeof(real))
        memcpy(out + c * P.n + y.w + c * y.k, a, y.k * sizeof(real))
        if y.b >= 0:
            memset(out + c * P.n + y.b, 0, y.m * sizeof(real))
            out[c * P.n + y.b + c] = 1


cdef inline void write_hidden_layer_columns(
    PlanS *P, Layer *y, const real *a, const real *D, Py_ssize_t ld, real *out
) noexcept nogil:
    """Write the columns of a sample's Jacobian rows that belong to the parameters of a hidden layer
    with input a. D is defined in the module docstring.
    """
    cdef Py_ssize_t c, i, k
    cdef real *to
    cdef real d
    for c in range(P.d_out):
        to = out + c * P.n + y.w
        for i in range(y.m):
            d = D[c * ld + i]
            for k in range(y.k):
                to[k] = d * a[k]
            to += y.k
        if y.b >= 0:
            memcpy(out + c * P.n + y.b, D + c * ld, y.m * sizeof(real))


cdef inline void propagate_to_layer_below(
    PlanS *P, Py_ssize_t l, const real *a, const real *p, real *D, real *E, Py_ssize_t ld
) noexcept nogil:
    """Replace D and E of layer l, defined in the module docstring, by those of the layer below,
    whose output is a and whose phi' is p.
    """
    cdef Layer *y = &P.layer[l]
    cdef Layer *x = &P.layer[l - 1]
    cdef const real *W = <const real *>P.theta + y.w
    cdef Py_ssize_t c, i, k
    cdef bint last = l == P.n_layers - 1
    cdef real *e
    cdef real d, slope
    for c in range(P.d_out):
        e = E + c * ld
        if last:
            memcpy(e, W + c * y.k, y.k * sizeof(real))
        else:
            if not y.skip:
                memset(e, 0, y.k * sizeof(real))
            for i in range(y.m):
                d = D[c * ld + i]
                for k in range(y.k):
                    e[k] += d * W[i * y.k + k]
    for k in range(y.k):
        if p != NULL:
            slope = p[k]
        elif not x.has_p or a[k] > 0:
            slope = 1
        else:
            slope = <real>FC_LEAKY_RELU_SLOPE if x.phi == FC_LEAKY_RELU else 0
        for c in range(P.d_out):
            D[c * ld + k] = E[c * ld + k] * slope
