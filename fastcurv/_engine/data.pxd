"""The data of an objective, as the plans that share it see it."""
from .kernels cimport fc_table
from .state cimport Data


cdef class Rows:
    cdef readonly object X, y, labels, weight
    cdef Data D
    # Copy X into its padded form, unless that is done.
    cdef int pad(self, const fc_table *K, int threads) except -1
