#include "tridiagonal.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { TRIES = 60 };
/* Beside 1: squares of products of two numbers that are not nothing do not underflow. */
static const double NOTHING = 1e-70;

/* One sweep from `end` up to l; returns the number of rotations kept so far. What one rotation
 * hands to the next stays in registers, and what the next g waits for takes one division and no
 * root: s s, c s and c c come from squares, and s and c, their roots, are ready a step later. */
static ptrdiff_t sweep(ptrdiff_t l, ptrdiff_t end, double *d, double *e, double *first,
                       double *last, fc_rotation *kept, ptrdiff_t room, ptrdiff_t done) {
    double g = (d[l + 1] - d[l]) / (2 * e[l]);
    g = d[end] - d[l] + e[l] / (g + copysign(sqrt(g * g + 1), g));
    double s = 1, c = 1, ss = 1, p = 0, here = d[end], x = first[end], y = last[end];
    for (ptrdiff_t i = end - 1; i >= l; i--) {
        const double f = s * e[i], b = c * e[i], ff = ss * (e[i] * e[i]), gg = g * g;
        const double square = ff + gg;
        if (square < NOTHING * NOTHING) { /* f and g are 0, and s is where e[i] is not */
            d[i + 1] = here - p, first[i + 1] = x, last[i + 1] = y, e[i + 1] = e[end] = 0;
            e[i] = b;
            return done;
        }
        const double share = 1 / square, cc = gg * share, cs = f * g * share;
        const double above = here - p, apart = d[i] - above, u = first[i], v = last[i];
        ss = ff * share, s = copysign(sqrt(ss), f), c = copysign(sqrt(cc), g);
        p = apart * ss + 2 * cs * b, d[i + 1] = above + p, e[i + 1] = sqrt(square), here = d[i];
        g = apart * cs + (cc - ss) * b;
        first[i + 1] = s * u + c * x, x = c * u - s * x;
        last[i + 1] = s * v + c * y, y = c * v - s * y;
        if (done < room) kept[done] = (fc_rotation){c, s, i};
        done++;
    }
    d[l] = here - p, first[l] = x, last[l] = y, e[l] = g, e[end] = 0;
    return done;
}

ptrdiff_t fc_rotations(ptrdiff_t m, double *d, double *e, double *first, double *last,
                       fc_rotation *kept, ptrdiff_t room) {
    ptrdiff_t done = 0;
    memset(first, 0, (size_t)m * sizeof(double));
    memset(last, 0, (size_t)m * sizeof(double));
    first[0] = last[m - 1] = 1, e[m - 1] = 0;
    for (ptrdiff_t l = 0; l < m; l++)
        for (int tries = 0;; tries++) {
            ptrdiff_t end = l;
            while (end < m - 1 && fabs(e[end]) > NOTHING &&
                   fabs(e[end]) > DBL_EPSILON * (fabs(d[end]) + fabs(d[end + 1])))
                end++;
            if (end == l) break;
            if (tries == TRIES) return -1;
            done = sweep(l, end, d, e, first, last, kept, room, done);
        }
    return done;
}

typedef double two __attribute__((vector_size(16), aligned(8), may_alias));

void fc_rotate_back(ptrdiff_t k, double *x, const fc_rotation *kept, ptrdiff_t count) {
    for (ptrdiff_t j = count - 1; j >= 0; j--) {
        const double c = kept[j].c, s = kept[j].s;
        double *here = x + kept[j].at * k, *next = here + k;
        for (ptrdiff_t r = 0; r < k; r += 2) {
            const two u = *(two *)(here + r), v = *(two *)(next + r);
            *(two *)(here + r) = c * u + s * v;
            *(two *)(next + r) = c * v - s * u;
        }
    }
}
