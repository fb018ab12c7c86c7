/* The kernels on their own, without Python: every slot of a vector table against the reference, at awkward sizes, in both dtypes.
 *
 * Compiled for aarch64 it tests fc_neon, on x86-64 fc_avx2 and fc_avx512 where the CPU has them, and fc_baseline on both:
 *     make neon                                                              cross-compiled, under emulation
 *     cc -std=gnu11 -O2 -Isrc/kernels tests/selftest.c src/kernels/{avx2,avx512,neon,baseline,reference}.c -lm      native
 * Prints "N passed, M failed"; the exit status says whether M is 0. Numbers come from a fixed generator.
 *
 * Padding holds NaN when a kernel gets it: no result may depend on it. Behind each matrix stands a canary. */
#include "kernels.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32                                /* every block here is an aligned one */
#include <malloc.h>
#define aligned_alloc(alignment, size) _aligned_malloc(size, alignment)
#define malloc(size) _aligned_malloc(size, 16)
#define calloc(count, size) memset(malloc((count) * (size)), 0, (count) * (size))
#define free(block) _aligned_free(block)
#endif

/* The BLAS table over loops of our own, its dimensions cut to 5: as those beyond 32 bits are. */
#define FC_BLAS_MOST 5
#define fc_blas_over blas_over_loops
#include "blas.c"
#undef fc_blas_over

static int passed, failed;
static char what[256];                       /* the case at hand, for the message */

static void check(int good, const char *part, double error) {
    if (good) { passed++; return; }
    if (failed++ < 40) printf("FAILED %s: %s (%.3g)\n", what, part, error);
}

/* --- numbers -------------------------------------------------------------------------------------------------------------- */

static uint64_t state = 88172645463325252u;
static double uniform(void) {                /* in [-1, 1) */
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (double)(state >> 11) / 4503599627370496.0 - 1;
}
static double whole(void) { return floor(9.5 * uniform()); }
static double normal(void) { return 2 * (uniform() + uniform() + uniform()); }
static double positive(void) { return 0.5 + fabs(uniform()); }

static double get(const void *x, ptrdiff_t i, int wide) { return wide ? ((const double *)x)[i] : (double)((const float *)x)[i]; }
static void put(void *x, ptrdiff_t i, int wide, double value) {
    if (wide) ((double *)x)[i] = value;
    else ((float *)x)[i] = (float)value;
}

/* --- matrices ------------------------------------------------------------------------------------------------------------- */

enum { CANARIES = 16 };
typedef struct {
    char *base;
    void *x;                                 /* padded: 64-byte border; else one number past it */
    ptrdiff_t rows, cols, ld;
    int wide, padded;
} Matrix;

static const double CANARY = 12345;

/* A matrix of numbers from `draw` (NULL: zeros), its padding NaN, a canary after it and, where not padded, before it. */
static Matrix matrix(ptrdiff_t rows, ptrdiff_t cols, int wide, int padded, double (*draw)(void)) {
    const ptrdiff_t size = wide ? 8 : 4, line = FC_ALIGN / size;
    Matrix m = {.rows = rows, .cols = cols, .wide = wide, .padded = padded};
    m.ld = padded ? (cols + line - 1) / line * line : cols;
    m.base = aligned_alloc(FC_ALIGN, (size_t)((rows * m.ld + 2 * line + CANARIES) * size + FC_ALIGN - 1) / FC_ALIGN * FC_ALIGN);
    m.x = m.base + (padded ? 0 : size);
    for (ptrdiff_t i = 0; i < rows * m.ld; i++) put(m.x, i, wide, i % m.ld < cols ? (draw ? draw() : 0) : (double)NAN);
    if (!padded) put(m.base, 0, wide, CANARY);
    for (ptrdiff_t i = 0; i < CANARIES; i++) put(m.x, rows * m.ld + i, wide, CANARY);
    return m;
}
static Matrix twin(Matrix m) {
    Matrix t = matrix(m.rows, m.cols, m.wide, m.padded, NULL);
    memcpy(t.x, m.x, (size_t)(m.rows * m.ld) * (m.wide ? 8 : 4));
    return t;
}
static void drop(Matrix m) { free(m.base); }

static int canaries_live(Matrix m) {
    int alive = m.padded || get(m.base, 0, m.wide) == CANARY;
    for (ptrdiff_t i = 0; i < CANARIES; i++) alive &= get(m.x, m.rows * m.ld + i, m.wide) == CANARY;
    return alive;
}

/* |got - true| <= slack max(1, |true|) everywhere; NaN agrees with NaN. Spends both. */
static void agree(Matrix got, Matrix true_, double slack, const char *part) {
    double worst = 0;
    for (ptrdiff_t i = 0; i < got.rows; i++)
        for (ptrdiff_t j = 0; j < got.cols; j++) {
            const double g = get(got.x, i * got.ld + j, got.wide), t = get(true_.x, i * true_.ld + j, got.wide);
            const double gap = g == t || (g != g && t != t) ? 0 : fabs(g - t) / fmax(1, fabs(t));
            worst = gap <= worst ? worst : gap;
        }
    check(worst <= slack, part, worst);
    check(canaries_live(got), "a canary died", 0);
    drop(got), drop(true_);
}
static double eps(int wide) { return wide ? DBL_EPSILON : FLT_EPSILON; }

/* --- the product ------------------------------------------------------------------------------------------------------------ */

static void *scratch_for(const fc_table *K) { return aligned_alloc(FC_ALIGN, (K->scratch + 2 * FC_ALIGN) / FC_ALIGN * FC_ALIGN); }

/* All items of a product, round by round; `whole_`: one item. */
static void multiply(const fc_table *K, fc_product job, int whole_) {
    void *scratch = scratch_for(K);
    if (whole_) job.row_block = job.m, job.col_block = job.n;
    else K->block(&job);
    for (int round = 0; round < K->rounds(&job); round++)
        for (ptrdiff_t j = 0; j * job.col_block < job.n; j++)
            for (ptrdiff_t i = 0; i * job.row_block < job.m; i++) K->product(&job, round, i, j, scratch);
    free(scratch);
}

/* B as a term wants it: 0 padded, 1 packed, 2 plain rows, 3 plain columns. */
static Matrix set_b(const fc_table *K, fc_term *t, Matrix B, int form) {
    const ptrdiff_t VL = K->vector_bytes / K->real_bytes;
    Matrix held = twin(B);
    t->b = held.x, t->b_rs = held.ld, t->b_vs = VL, t->b_cs = 0;
    if (form == 1) {
        drop(held);
        held = matrix(1, t->k * ((B.cols + VL - 1) / VL * VL), B.wide, 1, NULL);
        K->pack(B.rows, B.cols, B.x, B.ld, 1, 0, B.rows / 2, held.x);
        K->pack(B.rows, B.cols, B.x, B.ld, 1, B.rows / 2, B.rows, held.x);
        t->b = held.x, t->b_rs = VL, t->b_vs = VL * t->k;
    } else if (form >= 2) {
        drop(held);
        held = form == 2 ? matrix(B.rows, B.cols, B.wide, 0, NULL) : matrix(B.cols, B.rows, B.wide, 0, NULL);
        t->b_rs = form == 2 ? held.ld : 1, t->b_cs = form == 2 ? 1 : held.ld, t->b = held.x;
        for (ptrdiff_t i = 0; i < B.rows; i++)
            for (ptrdiff_t j = 0; j < B.cols; j++) put(held.x, i * t->b_rs + j * t->b_cs, B.wide, get(B.x, i * B.ld + j, B.wide));
    }
    return held;
}

/* C = [C +] A1 B1 [+ A2 B2] on whole numbers: exact in any order. */
static void test_product(const fc_table *K, int wide, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, int form, int exact, int transposed) {
    const int terms = 1 + (int)((m + n + k) % 2), add = (int)((m + k) % 2);
    Matrix A[2], B[2], held[2], C = matrix(m, n, wide, !exact, whole), true_ = twin(C);
    fc_product job = {.m = m, .n = n, .n_terms = terms, .c = C.x, .ldc = C.ld, .exact = exact, .accumulate = add};
    snprintf(what, sizeof what, "%s f%d product %dx%dx%d terms %d form %d exact %d add %d A' %d", K->name, wide ? 64 : 32, (int)m, (int)n,
             (int)k, terms, form, exact, add, transposed);
    for (int t = 0; t < terms; t++) {
        const ptrdiff_t depth = t ? k / 2 + 1 : k;
        A[t] = transposed ? matrix(depth, m, wide, t, whole) : matrix(m, depth, wide, t, whole);
        B[t] = matrix(depth, n, wide, 1, whole);
        job.term[t] = (fc_term){.k = depth, .a = A[t].x, .a_rs = transposed ? 1 : A[t].ld, .a_cs = transposed ? A[t].ld : 1};
        held[t] = set_b(K, &job.term[t], B[t], form);
    }
    for (ptrdiff_t i = 0; i < m; i++)
        for (ptrdiff_t j = 0; j < n; j++) {
            double sum = add ? get(true_.x, i * true_.ld + j, wide) : 0;
            for (int t = 0; t < terms; t++)
                for (ptrdiff_t l = 0; l < B[t].rows; l++)
                    sum += get(A[t].x, i * job.term[t].a_rs + l * job.term[t].a_cs, wide) * get(B[t].x, l * B[t].ld + j, wide);
            put(true_.x, i * true_.ld + j, wide, sum);
        }
    multiply(K, job, (m + n) % 3 == 0);
    for (int t = 0; t < terms; t++) drop(A[t]), drop(B[t]), drop(held[t]);
    agree(C, true_, 0, "values");
}

/* --- steps: on finished tiles of a product, and alone --------------------------------------------------------------------- */

typedef struct { Matrix c, d, p, q, r, skip, u, sums; double total; } State;

/* What a step needs, drawn alike for both tables. */
static State draw_state(ptrdiff_t m, ptrdiff_t n, int wide) {
    State s = {.c = matrix(m, n, wide, 1, whole), .d = matrix(m, n, wide, 1, normal), .p = matrix(m, n, wide, 1, uniform),
               .q = matrix(m, n, wide, 1, normal), .r = matrix(m, n, wide, 1, normal), .skip = matrix(m, n, wide, 1, normal),
               .u = matrix(1, n, wide, 1, whole), .sums = matrix(m, n, wide, 1, NULL), .total = 0};
    return s;
}
static State copy_state(State s) {
    State t = {.c = twin(s.c), .d = twin(s.d), .p = twin(s.p), .q = twin(s.q), .r = twin(s.r), .skip = twin(s.skip), .u = twin(s.u),
               .sums = twin(s.sums), .total = 0};
    return t;
}

enum { USE_P = 1, USE_Q = 2, USE_SKIP = 4, USE_SUMS = 8, USE_U = 16 };

/* One step through one table: k > 0, after a product of that depth; k = 0, alone on what c holds. */
static void take_step(const fc_table *K, State *s, fc_step_kind kind, fc_activation phi, int use, ptrdiff_t k, Matrix A, Matrix B) {
    const int back = kind == FC_STEP_BACKWARD || kind == FC_STEP_R_BACKWARD, dots = kind == FC_STEP_DOT || kind == FC_STEP_R_ACTIVATE;
    double *totals = calloc((size_t)(s->c.rows * (s->c.cols + 1)), sizeof(double));
    fc_step step = {.kind = kind, .phi = phi, .u = use & USE_U ? s->u.x : NULL, .d = s->d.x, .ldd = s->d.ld,
                    .p = use & USE_P ? s->p.x : NULL, .ldp = s->p.ld, .q = use & USE_Q ? s->q.x : NULL, .ldq = s->q.ld,
                    .a = s->p.x, .lda = s->p.ld,
                    .skip = use & USE_SKIP ? s->skip.x : NULL, .ldskip = s->skip.ld,
                    .sums = back && use & USE_SUMS ? s->sums.x : NULL, .ldsums = s->sums.ld, .total = dots && use & USE_P ? totals : NULL};
    if (kind == FC_STEP_R_ACTIVATE && !(use & USE_Q)) step.total = NULL;
    if (kind == FC_STEP_R_BACKWARD && use & USE_Q) step.r = s->r.x, step.ldr = s->r.ld;
    if (k == 0) K->step(&step, s->c.rows, s->c.cols, s->c.x, s->c.ld);
    else {
        fc_product job = {.m = s->c.rows, .n = s->c.cols, .n_terms = 1, .c = s->c.x, .ldc = s->c.ld, .step = step};
        job.term[0] = (fc_term){.k = k, .a = A.x, .a_rs = A.ld, .a_cs = 1};
        Matrix held = set_b(K, &job.term[0], B, 1);
        multiply(K, job, 0);
        drop(held);
    }
    for (ptrdiff_t i = 0; step.total && i < s->c.rows * (s->c.cols + 1); i++) s->total += totals[i];
    if (step.sums) {                                     /* blocks of rows are each table's own: compare their sum */
        Matrix sum = matrix(1, s->c.cols, s->c.wide, 1, NULL);
        for (ptrdiff_t i = 0; i < s->c.rows * s->c.cols; i++) {
            const ptrdiff_t j = i % s->c.cols;
            put(sum.x, j, s->c.wide, get(sum.x, j, s->c.wide) + get(s->sums.x, i / s->c.cols * s->sums.ld + j, s->c.wide));
        }
        drop(s->sums), s->sums = sum;
    }
    free(totals);
}

static void test_step(const fc_table *K, const fc_table *R, int wide, ptrdiff_t m, ptrdiff_t n, fc_step_kind kind, fc_activation phi, int use, ptrdiff_t k) {
    State mine = draw_state(m, n, wide), theirs = copy_state(mine);
    Matrix A = matrix(m, k ? k : 1, wide, 1, whole), B = matrix(k ? k : 1, n, wide, 1, whole);
    const double slack = 1000 * eps(wide), many = slack * (double)(m + n);       /* numbers reach hundreds and may cancel */
    snprintf(what, sizeof what, "%s f%d step %d phi %d use %d on %dx%d after %d", K->name, wide ? 64 : 32, kind, phi, use, (int)m, (int)n, (int)k);
    take_step(K, &mine, kind, phi, use, k, A, B);
    take_step(R, &theirs, kind, phi, use, k, A, B);
    agree(mine.c, theirs.c, slack, "c");
    if (kind != FC_STEP_DOT && kind != FC_STEP_NONE) agree(mine.d, theirs.d, slack, "d");
    else drop(mine.d), drop(theirs.d);
    agree(mine.p, theirs.p, slack, "p"), agree(mine.q, theirs.q, slack, "q");
    agree(mine.r, theirs.r, 0, "r"), agree(mine.skip, theirs.skip, 0, "skip"), agree(mine.u, theirs.u, 0, "u");
    agree(mine.sums, theirs.sums, many, "sums");
    check(fabs(mine.total - theirs.total) <= many * 1000 * (1 + fabs(theirs.total)), "total", mine.total - theirs.total);
    drop(A), drop(B);
}

/* --- several vectors at once ------------------------------------------------------------------------------------------------ */

/* A stack has the bits of its products one by one: terms that share B and that share A, a step, or an unpadded C to add to. */
static void test_stack(const fc_table *K, int wide, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, int terms, int outer, int count) {
    const ptrdiff_t VL = K->vector_bytes / K->real_bytes;
    Matrix A[2], B[2], C = matrix(count * m, n, wide, !outer, normal), D = matrix(count * m, n, wide, 1, normal);
    Matrix p = matrix(m, n, wide, 1, uniform), u = matrix(count, n, wide, 1, normal);
    fc_stack stack = {.count = count, .c = m * C.ld, .u = u.ld, .own = m * D.ld};
    fc_product *job = &stack.job;
    *job = (fc_product){.m = m, .n = n, .n_terms = terms, .c = C.x, .ldc = C.ld, .exact = outer, .accumulate = outer, .row_block = m, .col_block = n};
    if (!outer) job->step = (fc_step){.kind = FC_STEP_R_ACTIVATE, .u = u.x, .d = D.x, .ldd = D.ld, .p = p.x, .ldp = p.ld};
    for (int t = 0; t < terms; t++) {
        const ptrdiff_t apart = t ? 0 : count;                     /* the first term: an A for each; the second: a B for each */
        A[t] = outer ? matrix((apart ? count : 1) * k, m, wide, 1, normal) : matrix((apart ? count : 1) * m, k, wide, 1, normal);
        job->term[t] = (fc_term){.k = k, .a = A[t].x, .a_rs = outer ? 1 : A[t].ld, .a_cs = outer ? A[t].ld : 1};
        B[t] = matrix((apart ? 1 : count) * k, n, wide, 1, normal);
        stack.a[t] = apart ? (outer ? k : m) * A[t].ld : 0, stack.b[t] = apart ? 0 : k * B[t].ld;
        job->term[t].b = B[t].x, job->term[t].b_rs = B[t].ld, job->term[t].b_vs = VL;
    }
    Matrix C2 = twin(C), D2 = twin(D);
    void *scratch = scratch_for(K);
    snprintf(what, sizeof what, "%s f%d stack of %d: %dx%d, depth %d, terms %d, outer %d", K->name, wide ? 64 : 32, count, (int)m, (int)n, (int)k, terms, outer);
    if (K->stack(&stack, scratch)) {
        const ptrdiff_t size = K->real_bytes;
        for (int x = 0; x < count; x++) {
            fc_product one = *job;
            for (int t = 0; t < terms; t++) {
                one.term[t].a = (const char *)one.term[t].a + x * stack.a[t] * size;
                one.term[t].b = (const char *)one.term[t].b + x * stack.b[t] * size;
            }
            one.c = (char *)C2.x + x * stack.c * size;
            if (!outer) one.step.u = (const char *)u.x + x * u.ld * size, one.step.d = (char *)D2.x + x * stack.own * size;
            K->product(&one, 0, 0, 0, scratch);
        }
        agree(C, C2, 0, "c"), agree(D, D2, 0, "d");
    } else drop(C), drop(C2), drop(D), drop(D2);
    for (int t = 0; t < terms; t++) drop(A[t]), drop(B[t]);
    free(scratch), drop(p), drop(u);
}

/* --- activations, losses ----------------------------------------------------------------------------------------------------- */

static double spread(void) { return normal() * (uniform() > 0.5 ? 20 : 1); }

static void test_activate(const fc_table *K, const fc_table *R, int wide, ptrdiff_t m, ptrdiff_t n, fc_activation phi, int in_place) {
    Matrix z = matrix(m, n, wide, 1, spread), out[3], true_[3];
    snprintf(what, sizeof what, "%s f%d activation %d on %dx%d in place %d", K->name, wide ? 64 : 32, phi, (int)m, (int)n, in_place);
    put(z.x, 0, wide, 0);
    if (n > 1) put(z.x, (m - 1) * z.ld + n - 1, wide, (double)NAN);
    for (int i = 0; i < 3; i++) out[i] = matrix(m, n, wide, 1, NULL), true_[i] = matrix(m, n, wide, 1, NULL);
    R->activate(phi, m, n, z.x, z.ld, true_[0].x, z.ld, true_[1].x, z.ld, true_[2].x, z.ld);
    if (in_place < 3) {
        memcpy(out[in_place].x, z.x, (size_t)(m * z.ld) * (wide ? 8 : 4));
        if (in_place == 2 && (phi == FC_IDENTITY || phi == FC_RELU || phi == FC_LEAKY_RELU)) memcpy(true_[2].x, z.x, (size_t)(m * z.ld) * (wide ? 8 : 4));
        K->activate(phi, m, n, out[in_place].x, z.ld, out[0].x, z.ld, out[1].x, z.ld, out[2].x, z.ld);
    } else K->activate(phi, m, n, z.x, z.ld, out[0].x, z.ld, out[1].x, z.ld, out[2].x, z.ld);
    for (int i = 0; i < 3; i++) agree(out[i], true_[i], 16 * eps(wide), i == 0 ? "phi" : i == 1 ? "phi'" : "phi''");
    drop(z);
}

/* The loss, what it keeps, and the products with its second derivative: r_loss, r_fisher, in place or not. */
static void test_loss(const fc_table *K, const fc_table *R, int wide, ptrdiff_t m, ptrdiff_t n, fc_loss kind, int labels) {
    Matrix z = matrix(m, n, wide, 1, spread), y = matrix(m, n, wide, 0, positive), w = matrix(1, m, wide, 0, positive);
    Matrix rz = matrix(m, n, wide, 1, positive), out[2][5];
    int32_t *top[2], *classes = malloc((size_t)m * sizeof(int32_t));
    double value[2], alone[2];
    const double slack = 64 * eps(wide) * (double)(8 + n);
    snprintf(what, sizeof what, "%s f%d loss %d labels %d on %dx%d", K->name, wide ? 64 : 32, kind, labels, (int)m, (int)n);
    for (ptrdiff_t i = 0; i < m; i++) classes[i] = (int32_t)((3 * i + 1) % n);
    for (int t = 0; t < 2; t++) {
        const fc_table *T = t ? R : K;
        Matrix *o = out[t];
        for (int i = 0; i < 5; i++) o[i] = i == 2 ? matrix(1, m, wide, 0, NULL) : i > 2 && m % 2 ? twin(rz) : matrix(m, n, wide, 1, NULL);
        top[t] = calloc((size_t)m, sizeof(int32_t));
        fc_loss_rows job = {.kind = kind, .divisor = 3, .y = labels ? NULL : y.x, .ldy = y.ld, .labels = labels ? classes : NULL,
                            .weight = m % 3 ? w.x : NULL, .delta = o[0].x, .ldd = z.ld, .h = o[1].x, .ldh = z.ld, .s = o[2].x, .top = top[t]};
        value[t] = T->loss(&job, m, n, z.x, z.ld);
        T->r_loss(&job, m, n, m % 2 ? o[3].x : rz.x, rz.ld, o[3].x, rz.ld);
        T->r_fisher(0.5, m, n, o[0].x, z.ld, m % 2 ? o[4].x : rz.x, rz.ld, o[4].x, rz.ld);
        job.delta = job.h = job.s = NULL, job.top = NULL;
        alone[t] = T->loss(&job, m, n, z.x, z.ld);
    }
    check(fabs(value[0] - value[1]) <= slack * (1 + fabs(value[1])), "value", value[0] - value[1]);
    check(fabs(alone[0] - value[1]) <= slack * (1 + fabs(value[1])), "value alone", alone[0] - value[1]);
    for (ptrdiff_t i = 0; kind == FC_CROSS_ENTROPY && i < m; i++) check(top[0][i] == top[1][i], "top", (double)i);
    const char *names[] = {"delta", "h", "s", "r_loss", "r_fisher"};
    for (int i = 0; i < 5; i++) agree(out[0][i], out[1][i], slack * (i == 4 ? 100 : 1), names[i]);
    free(top[0]), free(top[1]), free(classes), drop(z), drop(y), drop(w), drop(rz);
}

/* --- copies and sums --------------------------------------------------------------------------------------------------------- */

static void test_sweeps(const fc_table *K, const fc_table *R, int wide, ptrdiff_t m, ptrdiff_t n) {
    const ptrdiff_t VL = K->vector_bytes / K->real_bytes;
    Matrix x = matrix(m, n, wide, 0, normal);
    for (int transposed = 0; transposed < 2; transposed++) {
        const ptrdiff_t rows = transposed ? n : m, cols = transposed ? m : n, rs = transposed ? 1 : n, cs = transposed ? n : 1;
        Matrix copied = matrix(rows, cols, wide, 1, NULL), packed = matrix(1, rows * ((cols + VL - 1) / VL * VL), wide, 0, NULL);
        int good = 1, fits = 1;
        snprintf(what, sizeof what, "%s f%d copy of %dx%d transposed %d", K->name, wide ? 64 : 32, (int)rows, (int)cols, transposed);
        K->copy(rows, cols, x.x, rs, cs, copied.x, copied.ld);
        K->pack(rows, cols, x.x, rs, cs, 0, rows / 3, packed.x);
        K->pack(rows, cols, x.x, rs, cs, rows / 3, rows, packed.x);
        for (ptrdiff_t i = 0; i < rows; i++) {
            for (ptrdiff_t j = 0; j < copied.ld; j++) good &= get(copied.x, i * copied.ld + j, wide) == (j < cols ? get(x.x, i * rs + j * cs, wide) : 0);
            for (ptrdiff_t j = 0; j < cols; j++) fits &= get(packed.x, j / VL * rows * VL + i * VL + j % VL, wide) == get(x.x, i * rs + j * cs, wide);
        }
        check(good && canaries_live(copied), "copy", 0), check(fits && canaries_live(packed), "pack", 0);
        drop(copied), drop(packed);
    }
    Matrix turned = matrix(n, m, wide, 0, NULL), by_loops = twin(turned);
    snprintf(what, sizeof what, "%s f%d columns of %dx%d", K->name, wide ? 64 : 32, (int)m, (int)n);
    K->columns(m, n, x.x, n, 1, 0, m / 3, turned.x, m), K->columns(m, n, x.x, n, 1, m / 3, m, turned.x, m);
    R->columns(m, n, x.x, n, 1, 0, m, by_loops.x, m);
    agree(turned, by_loops, 0, "columns");
    for (int add = 0; add < 2; add++) {
        Matrix mine = matrix(1, n, wide, 0, whole), theirs = twin(mine);
        snprintf(what, sizeof what, "%s f%d sums of %d vectors of %d add %d", K->name, wide ? 64 : 32, (int)m, (int)n, add);
        K->add_parts(n, m, x.x, n, add, mine.x), R->add_parts(n, m, x.x, n, add, theirs.x);
        agree(mine, theirs, 4 * eps(wide) * (double)m, "add_parts");
        mine = matrix(1, n, wide, 0, NULL), theirs = twin(mine);
        K->scale(n, -0.75, x.x, mine.x), R->scale(n, -0.75, x.x, theirs.x);
        agree(mine, theirs, 0, "scale");
    }
    drop(x);
}

/* --- rows of a basis, batch normalisation --------------------------------------------------------------------------------------- */

static void test_rows(const fc_table *K, const fc_table *R, int wide, ptrdiff_t m, ptrdiff_t s, ptrdiff_t cols) {
    Matrix q = matrix(m, cols, wide, 0, normal), w = matrix(s, cols, wide, 0, normal), other = twin(w), c = matrix(s, m, 1, 0, uniform);
    Matrix dots = matrix(s, m, 1, 0, whole), true_ = twin(dots), squares = matrix(1, s, 1, 0, whole), true_squares = twin(squares);
    const double slack = 100 * eps(wide) * (double)(cols + m);
    snprintf(what, sizeof what, "%s f%d rows %d and %d of %d", K->name, wide ? 64 : 32, (int)m, (int)s, (int)cols);
    K->dots(m, s, cols, q.x, cols, w.x, cols, dots.x, m), R->dots(m, s, cols, q.x, cols, w.x, cols, true_.x, m);
    K->take(m, s, cols, q.x, cols, w.x, cols, c.x, m, squares.x), R->take(m, s, cols, q.x, cols, other.x, cols, c.x, m, true_squares.x);
    agree(dots, true_, slack, "dots"), agree(w, other, slack, "take"), agree(squares, true_squares, slack, "squares");
    drop(q), drop(c);
}

/* Every sweep, into a matrix of its own and into each of its operands, and the sums in their four forms. */
static void test_norm(const fc_table *K, const fc_table *R, int wide, ptrdiff_t m, ptrdiff_t n) {
    Matrix x[4], k[6], mean = matrix(1, n, 1, 0, normal), sums[2];
    for (int i = 0; i < 4; i++) x[i] = matrix(m, n, wide, 1, normal);
    for (int i = 0; i < 6; i++) k[i] = matrix(1, n, wide, 0, normal);
    fc_norm job = {.x = x[0].x, .h = x[1].x, .y = x[2].x, .r = x[3].x, .ld = x[0].ld, .k = k[0].x, .m1 = k[1].x, .m2 = k[2].x,
                   .k1 = k[3].x, .n1 = k[4].x, .n2 = k[5].x};
    for (int kind = FC_NORM_SCALE; kind <= FC_NORM_R_CENTRE; kind++)
        for (int into = 0; into < 5; into++) {
            fc_norm mine = job, theirs = job;
            Matrix out[2];
            snprintf(what, sizeof what, "%s f%d norm %d into %d of %dx%d", K->name, wide ? 64 : 32, kind, into, (int)m, (int)n);
            for (int t = 0; t < 2; t++) {
                fc_norm *here = t ? &theirs : &mine;
                out[t] = into ? twin(x[into - 1]) : matrix(m, n, wide, 1, NULL);
                here->kind = (fc_norm_kind)kind, here->out = out[t].x;
                if (into) *(into == 1 ? &here->x : into == 2 ? &here->h : into == 3 ? &here->y : &here->r) = out[t].x;
                (t ? R : K)->norm(here, m, n);
            }
            agree(out[0], out[1], 1000 * eps(wide), "norm");
        }
    for (int form = 0; form < 4; form++) {
        snprintf(what, sizeof what, "%s f%d norm sums %d of %dx%d", K->name, wide ? 64 : 32, form, (int)m, (int)n);
        for (int t = 0; t < 2; t++) {
            fc_norm here = job;
            sums[t] = matrix(2, n, 1, 0, normal);
            here.mean = form == 0 ? mean.x : NULL, here.sums = sums[t].x, here.ldsums = n;
            if (form != 1) here.y = here.r = NULL;
            if (form == 3) here.h = NULL;
            (t ? R : K)->norm_sums(&here, m, n);
        }
        agree(sums[0], sums[1], 100 * DBL_EPSILON * (double)m, "sums");
    }
    for (int i = 0; i < 4; i++) drop(x[i]);
    for (int i = 0; i < 6; i++) drop(k[i]);
    drop(mean);
}

/* --- BLAS ------------------------------------------------------------------------------------------------------------------------- */

/* Fortran's gemm, columns one after the other. */
#define GEMM(name, real)                                                                                                     \
    static void name(char *ta, char *tb, int *m, int *n, int *k, real *alpha, real *a, int *lda, real *b, int *ldb,          \
                     real *beta, real *c, int *ldc) {                                                                        \
        check(*m <= FC_BLAS_MOST && *n <= FC_BLAS_MOST && *k <= FC_BLAS_MOST, "dimensions", *m);                             \
        check(*lda >= (*ta == 'N' ? *m : *k) && *ldb >= (*tb == 'N' ? *k : *n) && *ldc >= *m, "leading dimensions", *lda);  \
        for (int i = 0; i < *m; i++)                                                                                         \
            for (int j = 0; j < *n; j++) {                                                                                   \
                real sum = 0;                                                                                                \
                for (int l = 0; l < *k; l++)                                                                                 \
                    sum += a[*ta == 'N' ? i + (ptrdiff_t)l * *lda : l + (ptrdiff_t)i * *lda] *                               \
                           b[*tb == 'N' ? l + (ptrdiff_t)j * *ldb : j + (ptrdiff_t)l * *ldb];                                \
                real *to = c + i + (ptrdiff_t)j * *ldc;                                                                      \
                *to = *alpha * sum + (*beta == 0 ? 0 : *beta * *to);                                                         \
            }                                                                                                                \
    }
GEMM(loops_f32, float)
GEMM(loops_f64, double)

static void test_blas(const fc_table *references) {
    const int before = failed, so_far = passed;
    fc_table blas[2];
    blas_over_loops(references, references, loops_f32, loops_f64, blas);
    for (int wide = 0; wide < 2; wide++)
        for (ptrdiff_t m = 1; m < 12; m++)
            for (ptrdiff_t n = 1; n < 12; n++)
                for (int form = 0; form < 4; form++) test_product(&blas[wide], wide, m, n, (3 * m + 5 * n) % 13 + 1, form, (int)((m + n) % 2), (int)((m + form) % 2));
    printf("%-9s %6d passed, %d failed\n", "blas", passed - so_far, failed - before);
}

/* --- one table ------------------------------------------------------------------------------------------------------------------ */

static const ptrdiff_t LENGTHS[] = {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 47, 49, 64, 65};
enum { N_LENGTHS = sizeof LENGTHS / sizeof *LENGTHS };
static ptrdiff_t length(int i) { return LENGTHS[i % N_LENGTHS]; }

static void test_table(const fc_table *tables, const fc_table *references) {
    const int before = failed, so_far = passed;
    for (int wide = 0; wide < 2; wide++) {
        const fc_table *K = &tables[wide], *R = &references[wide];
        for (int i = 0; i < N_LENGTHS; i++)
            for (int j = 0; j < 5; j++)
                for (int form = 0; form < 4; form++) {
                    test_product(K, wide, length(i), length(5 * i + 3 * j + 1), length(7 * i + j + 2), form, (i + j) % 2, (i + form) % 2);
                    test_product(K, wide, length(3 * i + j), length(i), 100 + 13 * i + 97 * j, form, (i + j + 1) % 2, (i + form) % 2);
                }
        test_product(K, wide, 150, 210, 300, 0, 0, 0), test_product(K, wide, 140, 200, 270, 1, 1, 1);
        for (int kind = FC_STEP_NONE; kind <= FC_STEP_DOT; kind++)
            for (int use = 0; use < 32; use++) {
                if (!(use & USE_P) && (use & USE_Q || kind == FC_STEP_DOT)) continue;
                const fc_activation phis[] = {FC_IDENTITY, FC_TANH, FC_SIGMOID, FC_RELU, FC_LEAKY_RELU};
                for (int f = 0; f < 5; f++)
                    for (int k = 0; k < 2; k++)
                        test_step(K, R, wide, length(use + 3 * f + k), length(3 * use + f + 5 * kind), kind,
                                  kind == FC_STEP_ACTIVATE ? (fc_activation)((use + f) % FC_N_ACTIVATIONS) : use & USE_P ? phis[f] : FC_IDENTITY, use, 7 * k);
            }
        for (int i = 0; i < N_LENGTHS; i++) {
            for (int phi = 0; phi < FC_N_ACTIVATIONS; phi++)
                for (int in_place = 0; in_place < 4; in_place++) test_activate(K, R, wide, length(3 * i + phi), length(i), (fc_activation)phi, in_place);
            for (int kind = FC_MSE; kind <= FC_BINARY_CROSS_ENTROPY; kind++)
                for (int labels = 0; labels <= (kind == FC_CROSS_ENTROPY); labels++)
                    for (int j = 0; j < 2; j++) test_loss(K, R, wide, length(5 * i + 3 + j), length(i), (fc_loss)kind, labels);
            for (int j = 0; j < 4; j++) test_sweeps(K, R, wide, length(i), length(i + 3 * j));
            for (int j = 0; j < 3; j++) test_rows(K, R, wide, 1 + (i + j) % 9, 1 + i % 5, j == 2 ? 2048 * (i % 3) + length(i) : length(i + j));
            test_norm(K, R, wide, length(3 * i + 1), length(i));
            for (int outer = 0; outer < 2; outer++)
                for (int terms = 1; terms <= 2; terms++)
                    for (int j = 0; j < 4; j++)
                        test_stack(K, wide, length(5 * i + j), length(i + 7 * outer), length(3 * i + 5 * j + terms), terms, outer, 1 + (i + j) % FC_MAX_STACK);
        }
        Matrix sink = matrix(1, 64, wide, 1, positive);
        snprintf(what, sizeof what, "%s f%d peak", K->name, wide ? 64 : 32);
        check(K->peak(10, sink.x) > 0, "flops", 0);
        drop(sink);
    }
    printf("%-9s %6d passed, %d failed\n", tables[0].name, passed - so_far, failed - before);
}

int main(void) {
#ifdef FC_HAVE_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
        test_table(fc_avx512, fc_reference);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) test_table(fc_avx2, fc_reference);
#endif
#ifdef FC_HAVE_NEON
    test_table(fc_neon, fc_reference);
#endif
#ifdef FC_HAVE_VECTORS
    test_table(fc_baseline, fc_reference);
#endif
    test_table(fc_reference, fc_reference);
    test_blas(fc_reference);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
