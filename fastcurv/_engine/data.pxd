"""The data of an objective, as the plans that share it see it."""
from .kernels cimport fc_table
from .memory cimport Touch
from .state cimport Data


cdef class Rows:
    cdef readonly object X, y, labels, weight
    cdef Data D
    cdef bint padded                     # X is wanted in its padded form
    # Copy X into its padded form, unless that is done.
    cdef int pad(self, const fc_table *K, int threads) except -1
    cdef int fill(self, Touch *t, const fc_table *K, int threads) except -1
    cdef int point_at(self, X, y, labels, weight) except -1
    # Other data of the same kinds and shapes; whether X was copied and is seen to be finite.
    cdef int renew(self, X, y, labels, weight, const fc_table *K, int threads) except -1
