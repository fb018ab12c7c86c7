/* Eigenvalues of symmetric tridiagonal matrices by plane rotations, which are kept: any of the
 * eigenvectors can be had from them afterwards, at 6 flops a rotation. */
#ifndef FC_TRIDIAGONAL_H
#define FC_TRIDIAGONAL_H
#include <stddef.h>

typedef struct {
    double c, s;
    ptrdiff_t at; /* of the coordinates at and at + 1 */
} fc_rotation;

/* Implicit QL (Bowdler, Martin, Reinsch and Wilkinson, Numer. Math. 11, 1968): d (m,), m > 0,
 * becomes the eigenvalues of the matrix with that diagonal and e (m,) beside it, in no order; e is
 * spent; first and last become the first and the last row of the eigenvectors. As many rotations as
 * there is room for are kept. Returns their number, some 1.2 m^2, or -1 where the iteration failed.
 * Entries are near 1 or smaller. */
ptrdiff_t fc_rotations(ptrdiff_t m, double *d, double *e, double *first, double *last,
                       fc_rotation *kept, ptrdiff_t room);

/* x = Z x for x (m, k), with Z the product of the rotations and k even. */
void fc_rotate_back(ptrdiff_t k, double *x, const fc_rotation *kept, ptrdiff_t count);
#endif
