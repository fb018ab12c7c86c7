/* Eigenvalues of symmetric tridiagonal matrices: all of them by plane rotations, which are
 * stored so that eigenvectors can be computed afterwards at 6 flops per rotation; or a single
 * one, approximately, in O(m). */
#ifndef FC_TRIDIAGONAL_H
#define FC_TRIDIAGONAL_H
#include "kernels/kernels.h"

/* Implicit QL (Bowdler, Martin, Reinsch and Wilkinson, Numer. Math. 11, 1968): d (m,), m > 0, is
 * replaced by the eigenvalues, unordered, of the matrix with this diagonal and off-diagonal e
 * (m,); e is overwritten; first and last become the first and the last row of the eigenvectors.
 * At most `room` rotations are stored, for `turn`. Returns the number of rotations, about 1.2
 * m^2, or -1 if the iteration fails. Entries are near 1 or smaller. */
ptrdiff_t fc_rotations(ptrdiff_t m, double *d, double *e, double *first, double *last,
                       fc_rotation *kept, ptrdiff_t room);

typedef enum { FC_HIGHEST, FC_LOWEST, FC_LARGEST } fc_end; /* FC_LARGEST: largest absolute values */

/* Compute the eigenvalue of this rank, 1 or more, from an end of the spectrum, for the matrix
 * with diagonal d and off-diagonal e, and the absolute value of the last entry of its unit
 * eigenvector. Both are as accurate as an error of a thousandth of the distance from
 * neighbouring eigenvalues allows. Sturm counts isolate the eigenvalue; Rayleigh quotients by
 * twisted factorisations then converge to it (Parlett and Dhillon, Linear Algebra Appl. 267,
 * 1997). Returns 0 if neighbouring eigenvalues are too close to be separated. work (5 m,). */
int fc_ranked(ptrdiff_t m, const double *d, const double *e, fc_end end, ptrdiff_t rank,
              double *value, double *last, double *work);

/* Compute the logarithm of the sum of squares p_j(x)^2 for each of `count` finite x, with p_j
 * the m orthonormal polynomials of a Lanczos run; the entries of its matrix are `step` numbers
 * apart. */
void fc_growth(ptrdiff_t m, const double *d, const double *e, ptrdiff_t step, ptrdiff_t count,
               const double *x, double *out);
#endif
