/* Eigenvalues of symmetric tridiagonal matrices, by plane rotations that are stored so that
 * eigenvectors can be computed later with 6 flops per rotation, and the growth of the orthonormal
 * polynomials of such matrices. */
#ifndef FC_TRIDIAGONAL_H
#define FC_TRIDIAGONAL_H
#include "kernels/kernels.h"

/* fc_rotations computes all eigenvalues by the implicit QL method (Bowdler, Martin, Reinsch and
 * Wilkinson, Numer. Math. 11, 1968). On entry, d (m,) is the diagonal, with m > 0, and e (m,) the
 * off-diagonal, whose last entry is not used; all entries are at most about 1 in absolute value. On
 * return, d has the eigenvalues in no particular order, `first` (m,) and `last` (m,) have the first
 * and the last entry of each eigenvector, and e is overwritten. The first `room` rotations are
 * stored in `kept`, for the kernel `rotate`. The function returns the number of rotations, about
 * 1.2 m^2, or -1 if the iteration does not converge. */
ptrdiff_t fc_rotations(ptrdiff_t m, double *d, double *e, double *first, double *last,
                       fc_rotation *kept, ptrdiff_t room);

/* fc_growth computes the logarithm of the sum over j < m of p_j(x)^2 for each of `count` finite x.
 * The p_j are the orthonormal polynomials of a Lanczos run, whose tridiagonal matrix has the
 * diagonal d and the off-diagonal e, with entries `step` elements apart. */
void fc_growth(ptrdiff_t m, const double *d, const double *e, ptrdiff_t step, ptrdiff_t count,
               const double *x, double *out);
#endif
