/* Eigenvalues of symmetric tridiagonal matrices: all of them by plane rotations, which are kept, so
 * that any of the eigenvectors can be had from them afterwards, at 6 flops a rotation; or one of
 * them, roughly, in O(m). */
#ifndef FC_TRIDIAGONAL_H
#define FC_TRIDIAGONAL_H
#include "kernels/kernels.h"

/* Implicit QL (Bowdler, Martin, Reinsch and Wilkinson, Numer. Math. 11, 1968): d (m,), m > 0,
 * becomes the eigenvalues of the matrix with that diagonal and e (m,) beside it, in no order; e is
 * spent; first and last become the first and the last row of the eigenvectors. As many rotations as
 * there is room for are kept, for `turn`. Returns their number, some 1.2 m^2, or -1 where the
 * iteration failed. Entries are near 1 or smaller. */
ptrdiff_t fc_rotations(ptrdiff_t m, double *d, double *e, double *first, double *last,
                       fc_rotation *kept, ptrdiff_t room);

typedef enum { FC_HIGHEST, FC_LOWEST, FC_LARGEST } fc_end; /* FC_LARGEST: of absolute values */

/* The eigenvalue of this rank, 1 and more, from an end of the matrix with that diagonal and e
 * beside it, and the size of the last entry of its unit eigenvector: both as far as an error of a
 * thousandth of the distance from its neighbours changes them. Sturm counts separate it from these,
 * then Rayleigh quotients by twisted factors converge on it (Parlett and Dhillon, Linear Algebra
 * Appl. 267, 1997). Returns 0 where they are too close to be told apart. work (5 m,). */
int fc_ranked(ptrdiff_t m, const double *d, const double *e, fc_end end, ptrdiff_t rank,
              double *value, double *last, double *work);

/* The logarithm of the sum of squares p_j(x)^2 for each of `count` finite x, with p_j the m
 * orthonormal polynomials of a Lanczos run; the numbers of its matrix are `step` apart. */
void fc_growth(ptrdiff_t m, const double *d, const double *e, ptrdiff_t step, ptrdiff_t count,
               const double *x, double *out);
#endif
