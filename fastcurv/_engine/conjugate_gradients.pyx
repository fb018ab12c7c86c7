"""The method of conjugate gradients for (H + shift) y = -g, which detects negative curvature."""
cimport cython
import numpy as np

from libc.math cimport INFINITY, fmax, frexp, ldexp, log, log1p, sqrt


cdef enum:
    CG_G, CG_R, CG_P, CG_HP, CG_Y, CG_SCRATCH, CG_ROWS


cdef bint exceeds_convergence_bound(
    Py_ssize_t j, double fallen, double bound, double eps
) noexcept nogil:
    """Return True if the squared residual is larger than j iterations of conjugate gradients
    guarantee under the assumption ``H + 2 eps I >= eps I``. In that case H has curvature below
    -eps.

    The argument `fallen` is the squared residual norm divided by its initial value, and `bound` is
    an estimate of the norm of H.
    """
    cdef double root = sqrt((bound + 2 * eps) / eps)
    cdef double tau = root / (root + 1)  # close to 1, so log(tau) is computed without cancellation
    cdef double log_terms = log(root + 1) + log1p(sqrt(tau))
    cdef double guaranteed = log(4.) + 8 * log(root) + 2 * log_terms - j * log1p(1 / root)
    return fallen > 0 and log(fallen) > guaranteed


@cython.final
cdef class CGWorkspace:
    """Vectors of the method of conjugate gradients for (H + shift) y = -g, kept for a whole run,
    and the vector operations between two products.
    """
    cdef readonly object g, r, p, Hp, y, scratch
    cdef readonly double unit
    cdef object rows, sums
    cdef Sweep sweep
    cdef char *first

    def __init__(self, n, dtype):
        self.rows = np.zeros((CG_ROWS, n), dtype)
        self.g, self.r, self.p, self.Hp, self.y, self.scratch = self.rows
        self.sums = np.empty(4 * max(1, set_sweep(&self.sweep, self.rows, self.rows)))
        self.first, self.sweep.out = pointer(self.rows), <double *>pointer(self.sums)

    def start(self, g):
        """Start at ``y = 0`` for the gradient ``unit g``. The residual r is set to the scaled
        gradient and the direction p to -r. Return the squared norm of r. `unit` is a power of two,
        and is 1 unless squares of elements of g may overflow or underflow.
        """
        cdef Py_ssize_t n = self.sweep.n
        cdef bint wide = self.sweep.K.real_bytes == 8
        cdef int power, most = 1024 if wide else 128
        cdef double largest
        cdef char *x = self.first  # address of self.g
        np.copyto(self.g, g)
        largest = max_abs(n, <double *>x) if wide else max_abs(n, <float *>x)
        frexp(largest, &power)
        self.unit = 1
        if largest < INFINITY and abs(power) >= most // 4:
            self.unit = ldexp(1.0, -max(4 - most, min(most - 4, power)))
        self.y[:] = 0
        np.multiply(self.g, self.g.dtype.type(self.unit), out=self.r)
        np.negative(self.r, out=self.p)
        return self.sweep_rows(CG_R, 1, CG_R, 1, NULL)[0]

    def solve(
        self, multiply, double eps, double tolerance, double bound, Py_ssize_t most, stop,
        double cost_weight, double price
    ):
        """Run conjugate gradients after `start`. The algorithm is documented in
        `fastcurv.krylov.solvers.capped_cg`.

        Returns
        -------
        d : array (n,) or None
            The last iterate, or a direction of negative curvature. None if the residual decreases
            so slowly that H must have curvature below -eps.
        curvature : float or None
            Curvature of H along d, or None if d is an iterate.
        bound : float
            The largest norm of a product with a unit vector so far, a lower bound on the norm of H.
        steps : int
            The iteration that found negative curvature; `most` if none did.
        """
        cdef double rr0 = self.sweep_rows(CG_R, 1, CG_R, 1, NULL)[0], rr = rr0
        cdef double before, yy, along, left
        cdef double pp, pHp, HpHp, yHy
        cdef Py_ssize_t j
        cdef StoppingRule rule = new_stopping_rule(cost_weight, price)
        for j in range(1, most + 1):
            multiply(self.p, self.Hp)
            pp, pHp, HpHp = self.direction_products()
            bound = fmax(
                bound, (sqrt(HpHp) if 1e-30 < HpHp < 1e30 else self.norm_of_Hp()) / sqrt(pp)
            )
            if pHp + eps * pp < 0:  # equivalent to p'(H + 2 eps)p < eps p'p
                return self.p, pHp / pp, bound, j
            # In exact arithmetic y'r = 0 and (H + 2 eps) y = r - unit g.
            before = rr
            rr, yy, along, left = self.move_along_direction(rr / (pHp + 2 * eps * pp), 2 * eps)
            along *= self.unit
            yHy = left - along - 2 * eps * yy
            if yHy + eps * yy < 0:
                return self.y, yHy / yy, bound, j
            if rr <= (tolerance * tolerance) * rr0:
                break
            # In the first iterations, a residual that has not grown does not prove curvature below
            # -eps.
            if rr > rr0 or j * sqrt(eps) > sqrt(bound + 2 * eps):
                if exceeds_convergence_bound(j, rr / rr0, bound, eps):
                    return None, None, bound, j
            if stop is not None and stop():
                break
            if should_stop(&rule, j, -0.5 * (along + left)):
                break
            self.update_direction(rr / before)
        if self.unit != 1:
            self.y *= self.g.dtype.type(1 / self.unit)
        return self.y, None, bound, most

    cdef double norm_of_Hp(self) noexcept nogil:
        """Return ||Hp|| without overflow or underflow."""
        cdef Py_ssize_t n = self.sweep.n, line = n * self.sweep.K.real_bytes
        cdef char *Hp = self.first + CG_HP * line
        if self.sweep.K.real_bytes == 8:
            return safe_norm(n, <double *>Hp)
        return safe_norm(n, <float *>Hp)

    cdef double *sweep_rows(
        self, Py_ssize_t q, Py_ssize_t m, Py_ssize_t w, Py_ssize_t s, const double *c
    ) except NULL:
        """Sweep over m rows q and s rows w. If c is NULL, return the inner products (s, m).
        Otherwise compute w -= c q in place and return the squared norms (s,) of the new rows.
        """
        cdef Sweep *t = &self.sweep
        cdef Py_ssize_t line = t.n * t.K.real_bytes
        cdef int threads
        cdef fc_watch before
        t.m, t.s, t.q, t.w, t.c = m, s, self.first + q * line, self.first + w * line, c
        threads = sweep_threads(t)
        with nogil:
            before = begin_signal_watch()
            if c == NULL:
                compute_dots(t, threads)
            else:
                subtract_combination(t, threads)
            end_signal_watch(before)
        return t.out

    cpdef (double, double, double) direction_products(self) except *:
        """Return ``p'p``, ``p'Hp`` and ``||Hp||^2``."""
        cdef double *found = self.sweep_rows(CG_P, 2, CG_P, 2, NULL)
        return found[0], found[1], found[3]

    cpdef (double, double, double, double) move_along_direction(
        self, double step, double shift
    ) except *:
        """Compute ``y += step p`` and ``r += step (Hp + shift p)``. Return ``r'r``, ``y'y``,
        ``y'g`` and ``y'r``.
        """
        cdef double[2] c = [-step * shift, -step]
        cdef double rr = self.sweep_rows(CG_P, 2, CG_R, 1, c)[0]
        cdef double yy = self.sweep_rows(CG_P, 1, CG_Y, 1, c + 1)[0]
        cdef double *found = self.sweep_rows(CG_G, 2, CG_Y, 1, NULL)
        return rr, yy, found[0], found[1]

    cpdef void update_direction(self, double beta) except *:
        """Compute ``p = beta p - r``."""
        cdef char *p = self.first + CG_P * self.sweep.n * self.sweep.K.real_bytes
        cdef double one = 1
        self.sweep.K.scale(self.sweep.n, beta, p, p)
        self.sweep_rows(CG_R, 1, CG_P, 1, &one)
