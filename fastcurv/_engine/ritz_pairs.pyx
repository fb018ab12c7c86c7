"""Ritz values and vectors of a Lanczos basis, bounds on their residuals, convergence checks, and
bounds on what a random start may have missed.
"""
import numpy as np

from libc.math cimport INFINITY, fabs, fmax, fmin, hypot
from libc.string cimport memcpy


cdef class Lanczos(LanczosRecurrence):
    """The Lanczos recurrence for single vectors with the Ritz pairs of its basis.
    `fastcurv.krylov.lanczos.Recurrence` adds blocks.
    """

    cdef int diagonalise(self) except -1:
        """Diagonalise T into `found`, and raise `scale` to the largest |Ritz value|."""
        cdef SmallEigensystem found = self.found
        cdef Py_ssize_t last = self.m - 1
        self.update_pointers()
        if not (self.is_tridiagonal() and found.diagonalise_by_rotations(self.m, self.t, self.ld)):
            found.diagonalise_by_lapack(self.m, self.t, self.ld)
        self.scale = fmax(self.scale, fmax(fabs(found.values[0]), fabs(found.values[last])))
        return 0

    cdef bint is_tridiagonal(self) noexcept:
        """Return True if the part of T that belongs to the multiplied rows is tridiagonal. After a
        restart it is diagonal.
        """
        cdef Py_ssize_t i, j
        if self.tridiagonal:
            return True
        for i in range(self.m):
            for j in range(i - 1):
                if self.t[i * self.ld + j] != 0:
                    return False
        return True

    cdef Py_ssize_t *wanted_indices(self, Py_ssize_t k, str which) except NULL:
        """Return the indices of the k wanted Ritz values."""
        cdef Py_ssize_t i
        cdef Which end = WHICH_BY_NAME[which]
        cdef Py_ssize_t low = count_wanted_at_low_end(self.m, self.found.values, k, end)
        cdef Py_ssize_t *places = <Py_ssize_t *>self.small.reserve(k)
        for i in range(k):
            places[i] = i if i < low else self.m - k + i
        return places

    cdef double residual_norm(self, const double *s) noexcept:
        """Return the norm of the component of A x along the pending rows, for the Ritz vector x
        with coordinates s (m,).
        """
        cdef double found = 0
        cdef Py_ssize_t i
        for i in range(self.m, self.m + self.p):
            found = hypot(found, dot_doubles(self.m, self.t + i * self.ld, s))
        return found

    cdef double deflated_residual_norm(self, const double *s) noexcept:
        """Return the norm of the component of A x along the rows of `against`, for the Ritz vector
        x with coordinates s (m,).
        """
        cdef double found = 0
        cdef Py_ssize_t i
        for i in range(self.taken):
            found = hypot(found, dot_doubles(self.m, self.l + i * self.leaks, s))
        return found

    cdef double residual_bound(self, const double *s, double known) noexcept:
        """Return an upper bound on the residual norm of the Ritz vector with coordinates s (m,):
        the known part `known`, the part along deflated vectors, and err.
        """
        cdef double found = hypot(known, self.deflated_residual_norm(s))
        cdef Py_ssize_t i
        for i in range(self.m):
            found += fabs(s[i]) * self.e[i]
        return found

    def ritz_pairs(self, Py_ssize_t k, str which):
        """Return the k wanted Ritz pairs, or as many as there are.

        Returns
        -------
        theta : array (k,)
            Ritz values in ascending order.
        S : array (m, k)
            Coordinates of the Ritz vectors.
        known : array (k,)
            Norms of the residuals' components along the pending rows.
        limits : array (k,)
            Upper bounds on the residual norms.
        """
        cdef Py_ssize_t i, m = self.m
        k = min(k, m)
        theta, known, limits = np.empty((3, k))
        if not m:
            return theta, np.empty((0, 0)), known, limits
        self.diagonalise()
        cdef double *out = <double *>pointer(theta)
        cdef Py_ssize_t *places = self.wanted_indices(k, which)
        S = self.found.eigenvectors(k, places)
        cdef double *s = <double *>pointer(S)
        for i in range(k):
            out[i] = self.found.values[places[i]]
            out[k + i] = self.residual_norm(s + i * m)
            out[2 * k + i] = self.residual_bound(s + i * m, out[k + i])
        return theta, S.T, known, limits

    def ritz_spectrum(self):
        """Return all Ritz values (m,), the first coordinates of their vectors, and the norms of
        their residuals' components along the pending rows.
        """
        cdef Py_ssize_t i, m = self.m
        values, first, known = np.zeros((3, m))
        if not m:
            return values, first, known
        self.diagonalise()
        cdef double *out = <double *>pointer(values)
        cdef double *s
        memcpy(out, self.found.values, m * sizeof(double))
        memcpy(out + m, self.found.first, m * sizeof(double))
        if self.tridiagonal:
            for i in range(m if self.p else 0):
                out[2 * m + i] = fabs(self.t[m * self.ld + m - 1] * self.found.last[i])
            return values, first, known
        S = self.ritz_vectors(np.arange(m))
        s = <double *>pointer(S)
        for i in range(m):
            out[2 * m + i] = self.residual_norm(s + i * m)
        return values, first, known

    def ritz_vectors(self, which):
        """Return the coordinates (k, m) of the vectors of the Ritz values with the indices `which`,
        as of the last diagonalisation.
        """
        which = np.ascontiguousarray(which, np.intp)
        if which.ndim != 1 or not ((which >= 0) & (which < self.found.m)).all():
            raise ValueError(f"which must hold ints from 0 to {self.found.m - 1}, got {which}.")
        return self.found.eigenvectors(len(which), <Py_ssize_t *>pointer(which))

    cdef double ratio_to_tolerance(self, const double *s, double known, double tol) noexcept:
        """Return the ratio of a residual to its allowed size. The parts of the residual's bound
        that further products cannot reduce are subtracted from the allowed size, but at most half
        of it.
        """
        cdef double allowed = fmax(tol * self.scale, 2 * self.noise)
        if s != NULL:
            allowed -= fmin(self.residual_bound(s, known) - known, allowed / 2)
        return known / allowed if allowed > 0 else INFINITY if known > 0 else 0

    def check_convergence(self, Py_ssize_t k, str which, double tol):
        """Compare the k wanted Ritz pairs with the tolerance. The basis must have at least k rows.

        Returns
        -------
        theta : array (k,)
            Ritz values.
        excess : array (k,)
            Ratios of residuals to their allowed sizes. A pair has converged if its ratio is at most
            1.
        """
        cdef Py_ssize_t i, m = self.m, ld = self.ld
        cdef double worst = 0, known
        if not 0 < k <= m:
            raise ValueError(f"k must be an int from 1 to {m}, the number of rows, got {k}.")
        self.diagonalise()
        theta, excess = np.empty((2, k))
        cdef double *out = <double *>pointer(theta)
        cdef double *s
        cdef Py_ssize_t *places = self.wanted_indices(k, which)
        for i in range(k):
            out[i] = self.found.values[places[i]]
            known = fabs(self.t[m * ld + m - 1] * self.found.last[places[i]]) * (self.p > 0)
            out[k + i] = self.ratio_to_tolerance(NULL, known, tol)
            worst = fmax(worst, out[k + i])
        # some pair has not converged, so bounds that require the Ritz vectors are not needed
        if self.tridiagonal and worst > 1:
            return theta, excess
        S = self.found.eigenvectors(k, places)
        s = <double *>pointer(S)
        for i in range(k):
            known = self.residual_norm(s + i * m)
            out[k + i] = self.ratio_to_tolerance(s + i * m, known, tol)
        return theta, excess


# --- bounds on missed eigenvalues -----------------------------------------------------------------

def log_polynomial_growth(diagonal, off_diagonal, at):
    """Return the logarithm of ``sum_j p_j(mu)^2`` for each mu in `at`. The p_j are the orthonormal
    polynomials of a Lanczos run whose tridiagonal matrix has the given diagonal and off-diagonal.

    Let z be a unit eigenvector of the operator, mu its eigenvalue and w the component of the unit
    start vector along z. Then the j-th Lanczos vector has the component ``p_j(mu) w`` along z, and
    the squares of these components add up to at most 1. Hence ``w^2 <= exp(-growth)``. If a run has
    missed z, its start was almost orthogonal to z, and the probability of this is known for a
    random start.

    Examples
    --------
    >>> log_polynomial_growth(np.array([1.0, 2.0]), np.array([0.5]), np.array([1.0, 0.0])).round(3)
    array([0.   , 1.609])
    """
    diagonal = as_float64_vector(diagonal, "diagonal")
    off_diagonal = as_float64_vector(off_diagonal, "off_diagonal")
    at = as_float64_vector(at, "at")
    if len(off_diagonal) + 1 < len(diagonal):
        raise ValueError(
            f"off_diagonal must have at least {len(diagonal) - 1} entries, got "
            f"{len(off_diagonal)}."
        )
    out = np.empty(len(at))
    fc_growth(
        len(diagonal), <double *>pointer(diagonal), <double *>pointer(off_diagonal), 1, len(at),
        <double *>pointer(at), <double *>pointer(out)
    )
    return out
