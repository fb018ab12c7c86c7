# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: freethreading_compatible=True
"""See l2.pxd. A flat vector is runs of numbers that l2 takes, each with numbers after it that l2
spares: one run of all, or a layer's W and then its biases.
"""
from libc.string cimport memset

from .state cimport Layer


cdef struct Run:
    char *at                    # of x
    Py_ssize_t first, taken, spared


cdef inline Py_ssize_t runs(PlanS *P) noexcept nogil:
    return P.n_layers if P.spare else 1


cdef inline Run run_of(PlanS *P, Py_ssize_t l, char *x) noexcept nogil:
    cdef Run found
    cdef Layer *y = &P.layer[l]
    found.first, found.taken = y.w, y.m * y.k if P.spare else P.n
    found.at = x + found.first * P.K.real_bytes
    found.spared = (P.layer[l + 1].w if P.spare and l + 1 < P.n_layers else P.n)
    found.spared -= found.first + found.taken
    return found


cdef void decay(PlanS *P, double l2, char *x, char *out) noexcept nogil:
    cdef Py_ssize_t l, size = P.K.real_bytes
    cdef Run r
    for l in range(runs(P)):
        r = run_of(P, l, x)
        P.K.scale(r.taken, l2, r.at, out + r.first * size)
        memset(out + (r.first + r.taken) * size, 0, r.spared * size)


cdef double decayed(PlanS *P, char *x) noexcept nogil:
    cdef Py_ssize_t l
    cdef double square = 0
    cdef Run r
    for l in range(runs(P)):
        r = run_of(P, l, x)
        P.K.dots(1, 1, r.taken, r.at, r.taken, r.at, r.taken, &square, 1)
    return square
