#include "tridiagonal.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* MAX_QL_ITERATIONS: maximum QL sweeps per eigenvalue. REVERSAL_RATIO: maximum ratio of the first
 * to the last entries of a matrix that is not reversed. */
enum { MAX_QL_ITERATIONS = 60, REVERSAL_RATIO = 1000 };
/* Entries below this, relative to 1, are treated as 0. The square of a product of two larger
 * numbers does not underflow. */
static const double NEGLIGIBLE = 1e-70;

/* Perform one QL sweep from row `end` up to row l. Return the number of rotations so far: `done`,
 * those before this sweep, plus its own. The first `room` rotations are stored in `kept`. The
 * quantities needed by the next rotation are held in local variables. The next g depends on one
 * division and no square root, because s s, c s and c c are computed from squares, and their roots
 * s and c are needed only one step later. */
static ptrdiff_t sweep(ptrdiff_t l, ptrdiff_t end, double *d, double *e, double *first,
                       double *last, fc_rotation *kept, ptrdiff_t room, ptrdiff_t done) {
    double g = (d[l + 1] - d[l]) / (2 * e[l]);
    g = d[end] - d[l] + e[l] / (g + copysign(sqrt(g * g + 1), g));
    double s = 1, c = 1, ss = 1, p = 0, here = d[end], x = first[end], y = last[end];
    for (ptrdiff_t i = end - 1; i >= l; i--) {
        const double f = s * e[i], b = c * e[i], ff = ss * (e[i] * e[i]), gg = g * g;
        const double square = ff + gg;
        /* f and g are negligible, so the matrix splits here */
        if (square < NEGLIGIBLE * NEGLIGIBLE) {
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

static ptrdiff_t rotations(ptrdiff_t m, double *d, double *e, double *first, double *last,
                           fc_rotation *kept, ptrdiff_t room) {
    ptrdiff_t done = 0;
    memset(first, 0, (size_t)m * sizeof(double));
    memset(last, 0, (size_t)m * sizeof(double));
    first[0] = last[m - 1] = 1, e[m - 1] = 0;
    for (ptrdiff_t l = 0; l < m; l++)
        for (int tries = 0;; tries++) {
            ptrdiff_t end = l;
            while (end < m - 1 && fabs(e[end]) > NEGLIGIBLE &&
                   fabs(e[end]) > DBL_EPSILON * (fabs(d[end]) + fabs(d[end + 1])))
                end++;
            if (end == l) break;
            if (tries == MAX_QL_ITERATIONS) return -1;
            done = sweep(l, end, d, e, first, last, kept, room, done);
        }
    return done;
}

static void reverse(ptrdiff_t m, double *x) {
    for (ptrdiff_t i = 0, j = m - 1; i < j; i++, j--) {
        const double one = x[i];
        x[i] = x[j], x[j] = one;
    }
}

/* A QL sweep loses the relative accuracy of small eigenvalues if the first entries of the matrix
 * are by far the largest. Such a matrix is therefore reversed. */
ptrdiff_t fc_rotations(ptrdiff_t m, double *d, double *e, double *first, double *last,
                       fc_rotation *kept, ptrdiff_t room) {
    if (m < 2 || fabs(d[0]) + fabs(e[0]) <= REVERSAL_RATIO * (fabs(d[m - 1]) + fabs(e[m - 2])))
        return rotations(m, d, e, first, last, kept, room);
    reverse(m, d), reverse(m - 1, e);
    const ptrdiff_t count = rotations(m, d, e, last, first, kept, room);
    reverse(m, d), reverse(m, first), reverse(m, last);
    for (ptrdiff_t j = 0; j < count && j < room; j++)
        kept[j].at = m - 2 - kept[j].at, kept[j].s = -kept[j].s;
    return count;
}

typedef double two __attribute__((vector_size(16), aligned(8), may_alias));

/* Evaluation points are processed as PAIRS vectors of two. */
enum { PAIRS = 4, LANES = 2 * PAIRS };
typedef long long two_counts __attribute__((vector_size(16)));

void fc_growth(ptrdiff_t m, const double *d, const double *e, ptrdiff_t step, ptrdiff_t count,
               const double *x, double *out) {
    for (ptrdiff_t first = 0; first < count; first += LANES) {
        two at[PAIRS] = {{0}}, before[PAIRS] = {{0}}, here[PAIRS], total[PAIRS];
        double taken[LANES] = {0}, back = 0;
        const ptrdiff_t some = count - first < LANES ? count - first : LANES;
        for (ptrdiff_t i = 0; i < LANES; i++) at[i / 2][i % 2] = x[first + (i < some ? i : 0)];
        for (int v = 0; v < PAIRS; v++) here[v] = total[v] = (two){1, 1};
        for (ptrdiff_t j = 0; j < m - 1; j++) {
            const double unit = 1 / e[j * step], share = back * unit, own = d[j * step];
            two_counts large = {0};
            for (int v = 0; v < PAIRS; v++) {
                const two next = (at[v] - own) * unit * here[v] - share * before[v];
                before[v] = here[v], here[v] = next, total[v] += next * next;
                large |= total[v] > 1e100;
            }
            if (large[0] | large[1])
                for (int i = 0; i < LANES; i++)
                    if (total[i / 2][i % 2] > 1e100) {
                        before[i / 2][i % 2] *= 1e-50, here[i / 2][i % 2] *= 1e-50;
                        total[i / 2][i % 2] *= 1e-100, taken[i] += log(1e100);
                    }
            back = e[j * step];
        }
        for (ptrdiff_t i = 0; i < some; i++) out[first + i] = log(total[i / 2][i % 2]) + taken[i];
    }
}
