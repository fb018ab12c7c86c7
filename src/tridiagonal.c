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

/* Evaluation points are processed as PAIRS vectors of two. MAX_BISECTIONS limits the bisection
 * steps, and MAX_QUOTIENTS the Rayleigh quotients per attempt. */
enum { PAIRS = 4, LANES = 2 * PAIRS, MAX_BISECTIONS = 12, MAX_QUOTIENTS = 6 };
typedef long long two_counts __attribute__((vector_size(16)));

/* Count the eigenvalues of T below each x, which is the number of negative pivots of T - x I. After
 * a pivot of 0 the next pivot is minus infinity, which counts for both. */
static void count_below(ptrdiff_t m, const double *d, const double *ee, const two *x,
                        ptrdiff_t *found) {
    two q[PAIRS];
    two_counts n[PAIRS] = {{0}};
    for (int v = 0; v < PAIRS; v++) q[v] = d[0] - x[v];
    for (ptrdiff_t i = 1; i < m; i++)
        for (int v = 0; v < PAIRS; v++) {
            n[v] -= q[v] < 0;
            q[v] = d[i] - x[v] - ee[i - 1] / q[v];
        }
    for (int v = 0; v < PAIRS; v++) {
        n[v] -= q[v] < 0;
        found[2 * v] = (ptrdiff_t)n[v][0], found[2 * v + 1] = (ptrdiff_t)n[v][1];
    }
}

/* Refine an approximate eigenvalue x that is separated from its neighbours by `apart`, by Rayleigh
 * quotients with vectors from twisted factorisations, and compute the absolute value of the last
 * entry of its unit eigenvector. `plus` and `minus` are work arrays of m elements. Return 1, or 0
 * if the quotients do not converge. */
static int refine(ptrdiff_t m, const double *d, const double *e, const double *ee, double apart,
                  double *x, double *last, double *plus, double *minus) {
    for (int attempt = 0; attempt < MAX_QUOTIENTS; attempt++) {
        double least = INFINITY, left = INFINITY, z = 1, square = 1, end = 1;
        ptrdiff_t at = 0;
        plus[0] = d[0] - *x, minus[m - 1] = d[m - 1] - *x;
        for (ptrdiff_t i = 1, j = m - 2; i < m; i++, j--) {
            plus[i] = d[i] - *x - ee[i - 1] / plus[i - 1];
            minus[j] = d[j] - *x - ee[j] / minus[j + 1];
        }
        for (ptrdiff_t i = 0; i < m; i++) {
            const double pivot = plus[i] + minus[i] - (d[i] - *x);
            if (fabs(pivot) < least) least = fabs(pivot), left = pivot, at = i;
        }
        for (ptrdiff_t i = at - 1; i >= 0; i--) z *= -e[i] / plus[i], square += z * z;
        for (ptrdiff_t i = at; i < m - 1; i++) end *= -e[i] / minus[i + 1], square += end * end;
        if (!(square < INFINITY && least < INFINITY)) return 0;
        *x += left / square, *last = fabs(end) / sqrt(square);
        if (least <= 1e-4 * apart * sqrt(square)) return 1;
    }
    return 0;
}

int fc_ranked(ptrdiff_t m, const double *d, const double *e, fc_end end, ptrdiff_t rank,
              double *value, double *last, double *work) {
    double *diagonal = work, *off_diagonal = work + m, *ee = work + 2 * m, size = 0;
    for (ptrdiff_t i = 0; i < m; i++) {
        const double near = (i ? fabs(e[i - 1]) : 0) + (i < m - 1 ? fabs(e[i]) : 0);
        size = fmax(size, fabs(d[i]) + near);
    }
    if (!(size > 0 && 1 / size > 0 && size < INFINITY)) return 0;
    const double scaled_by = end == FC_LOWEST ? -1 / size : 1 / size;
    for (ptrdiff_t i = 0; i < m; i++) {
        diagonal[i] = d[i] * scaled_by, off_diagonal[i] = i < m - 1 ? e[i] / size : 0;
        ee[i] = fmax(off_diagonal[i] * off_diagonal[i], NEGLIGIBLE * NEGLIGIBLE);
    }
    double low = end == FC_LARGEST ? 0 : -1.01, high = 1.01;
    ptrdiff_t beyond_low = m, beyond_high = 0, above_low = m, above_high = 0;
    for (int attempt = 0; attempt < MAX_BISECTIONS; attempt++) {
        const double from = low, step = (high - low) / (LANES + 1);
        two x[PAIRS], opposite[PAIRS];
        ptrdiff_t below[LANES], under[LANES] = {0};
        for (int i = 0; i < LANES; i++) x[i / 2][i % 2] = from + (i + 1) * step;
        count_below(m, diagonal, ee, x, below);
        if (end == FC_LARGEST) {
            for (int v = 0; v < PAIRS; v++) opposite[v] = -x[v];
            count_below(m, diagonal, ee, opposite, under);
        }
        for (int i = 0; i < LANES; i++) {
            const ptrdiff_t above = m - below[i], beyond = above + under[i];
            if (beyond < rank) {
                high = x[i / 2][i % 2], beyond_high = beyond, above_high = above;
                break;
            }
            low = x[i / 2][i % 2], beyond_low = beyond, above_low = above;
        }
        if (beyond_low - beyond_high != 1 || (end == FC_LARGEST && low == 0)) continue;
        const int sign = above_low != above_high ? 1 : -1;
        double found = sign * (low + high) / 2;
        if (refine(m, diagonal, off_diagonal, ee, high - low, &found, last, work + 3 * m,
                   work + 4 * m) &&
            fabs(sign * found - (low + high) / 2) <= 0.51 * (high - low)) {
            *value = found / scaled_by;
            return 1;
        }
    }
    return 0;
}

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
