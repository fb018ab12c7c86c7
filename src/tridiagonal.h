/* Eigenvalues of symmetric tridiagonal matrices: either all of them, by plane rotations that are
 * stored so that eigenvectors can be computed later with 6 flops per rotation, or a single one,
 * approximately, in O(m). */
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

typedef enum { FC_HIGHEST, FC_LOWEST, FC_LARGEST } fc_end; /* FC_LARGEST: by absolute value */

/* fc_ranked computes one eigenvalue of the matrix with diagonal d (m,) and off-diagonal e (m - 1,),
 * and the absolute value of the last entry of its unit eigenvector. `rank` is 1 for the outermost
 * eigenvalue at the given end of the spectrum, 2 for the next, and so on. The results are as
 * accurate as a perturbation of a thousandth of the distance to the neighbouring eigenvalues
 * permits. Sturm counts isolate the eigenvalue; Rayleigh quotients by twisted factorisations then
 * converge to it (Parlett and Dhillon, Linear Algebra Appl. 267, 1997). The function returns 0 if
 * neighbouring eigenvalues are too close to be separated. `work` has 5 m elements. */
int fc_ranked(ptrdiff_t m, const double *d, const double *e, fc_end end, ptrdiff_t rank,
              double *value, double *last, double *work);

/* fc_growth computes the logarithm of the sum over j < m of p_j(x)^2 for each of `count` finite x.
 * The p_j are the orthonormal polynomials of a Lanczos run, whose tridiagonal matrix has the
 * diagonal d and the off-diagonal e, with entries `step` elements apart. */
void fc_growth(ptrdiff_t m, const double *d, const double *e, ptrdiff_t step, ptrdiff_t count,
               const double *x, double *out);
#endif
