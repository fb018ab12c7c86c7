/* The table of kernels: arithmetic that knows numbers, not networks.
 *
 * A table serves one instruction set and one dtype; every slot of every table is valid. The passes
 * of fastcurv/_engine call through the table and never learn which filling they got: plain loops
 * (the reference), BLAS, or our own vector kernels.
 *
 * Conventions for every slot
 *   - Pointers are `void *` to the table's real type; strides and sizes count elements.
 *   - A "padded" matrix is row-major, its first element on a 64-byte border, its leading dimension
 *     a multiple of 64 bytes.
 *     What lies between `cols` and the next multiple of 64 bytes belongs to the matrix: it may be
 *     read and overwritten, and no result depends on it. Matrices that are not called padded are
 *     touched inside their bounds only.
 *   - NaN in gives NaN out; nothing reads or changes the floating-point environment; nothing
 *     allocates or fails.
 *   - No slot's result depends on the number of threads.
 */
#ifndef FC_KERNELS_H
#define FC_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if (defined(__GNUC__) || defined(__clang__)) && !defined(FC_NO_VECTORS)
#define FC_HAVE_VECTORS 1 /* vector extensions: our own kernels exist */
#if defined(__x86_64__)
#define FC_HAVE_X86 1
#elif defined(__aarch64__)
#define FC_HAVE_NEON 1
#endif
#define FC_INLINE static inline __attribute__((always_inline, unused))
/* Compiled for size: large, and no slower for it. */
#define FC_SMALL __attribute__((cold))
#define FC_LARGE __attribute__((hot, noinline))
#ifdef __clang__
#define FC_UNROLL _Pragma("unroll")
#define FC_ROLL _Pragma("nounroll")
#else
#define FC_UNROLL _Pragma("GCC unroll 16")
#define FC_ROLL _Pragma("GCC unroll 1")
#endif
#define FC_EACH(i, n) \
    FC_UNROLL         \
    for (int i = 0; i < (n); i++)
/* One pointer goes from row to row: compilers would rather make as many as there are rows, before
 * the first is wanted. */
#define FC_STEPPED(pointer) __asm__("" : "+r"(pointer))
/* x stays in a register: GCC would rather read it again from memory for each multiply-add. */
#if defined(FC_HAVE_X86)
#define FC_HOLD(x) __asm__("" : "+v"(x))
#elif defined(FC_HAVE_NEON)
#define FC_HOLD(x) __asm__("" : "+w"(x))
#else
#define FC_HOLD(x) ((void)0)
#endif
#else
#define FC_INLINE static inline
#define FC_SMALL
#define FC_LARGE
#endif

/* bytes: every padded matrix starts and every row of it starts on such a border */
enum { FC_ALIGN = 64 };

/* The activations of hidden layers, in the order of their numbers. To add one: a line here, its
 * arithmetic in activations.inc, for vectors and for one number, and a row in
 * fastcurv/structure/tables.py. */
#define FC_ACTIVATIONS(X)        \
    X(FC_IDENTITY, identity)     \
    X(FC_RELU, relu)             \
    X(FC_LEAKY_RELU, leaky_relu) \
    X(FC_TANH, tanh)             \
    X(FC_SIGMOID, sigmoid)       \
    X(FC_SOFTPLUS, softplus)     \
    X(FC_SILU, silu)             \
    X(FC_GELU, gelu)             \
    X(FC_ELU, elu)

/* The losses, in the order of their numbers: OF_ONE where each output has its own (a function of
 * losses.inc, called NAME_of), OF_ROW where a row's outputs are coupled. To add one of the first
 * kind: a line here, NAME_of and its case in loss_one in losses.inc, a row in
 * fastcurv/structure/tables.py. Losses that are given by a function of NumPy have none of this: the
 * engine is handed their derivatives, and in r_loss they are like the first kind. */
#define FC_LOSSES(OF_ONE, OF_ROW)           \
    OF_ONE(FC_MSE, mse)                     \
    OF_ROW(FC_CROSS_ENTROPY, cross_entropy) \
    OF_ONE(FC_BINARY_CROSS_ENTROPY, binary_cross_entropy)

#define FC_NUMBER(id, name) id,
#define FC_QUOTED(id, name) #name,
#define FC_NOTHING(id, name)
typedef enum {
    FC_ACTIVATIONS(FC_NUMBER) FC_N_ACTIVATIONS,
    FC_ASKED = FC_N_ACTIVATIONS /* given by a function of NumPy: no kernel is asked for phi */
} fc_activation;
typedef enum { FC_LOSSES(FC_NUMBER, FC_NUMBER) FC_N_LOSSES, FC_GIVEN = FC_N_LOSSES } fc_loss;
FC_INLINE const char *fc_activation_name(int phi) {
    static const char *const names[] = {FC_ACTIVATIONS(FC_QUOTED)};
    return names[phi];
}
FC_INLINE const char *fc_loss_name(int loss) {
    static const char *const names[] = {FC_LOSSES(FC_QUOTED, FC_QUOTED)};
    return names[loss];
}

/* the slope of a leaky relu below 0 */
#define FC_LEAK 0.01

/* phi'' is not 0 everywhere */
static inline int fc_bends(fc_activation phi) {
    return phi != FC_IDENTITY && phi != FC_RELU && phi != FC_LEAKY_RELU;
}
static inline int fc_slope_from_a(fc_activation phi) {
    return phi == FC_RELU || phi == FC_LEAKY_RELU;
}
static inline int fc_bend_from_delta(fc_activation phi) {
    return phi == FC_TANH || phi == FC_SIGMOID;
}

/* What happens to a finished tile of a product, while it is in cache. c is the tile; d, p, q, r,
 * skip are matrices of the output's shape, u a vector over its columns, all padded; d may be c,
 * everything else is its own.
 *
 *   FC_STEP_NONE        c
 *   FC_STEP_ACTIVATE    c = c + u;  d = phi(c) [+ skip];  p = phi'(c);  q = phi''(c)
 *                       p may be c; p, q may be NULL
 *   FC_STEP_R_ACTIVATE  c = c + u;  d = p * c [+ skip];  total += sum of q * c * c
 *                       total may be NULL
 *   FC_STEP_BACKWARD    c = c [+ skip];  d = c * p;  q = c * q         q may be NULL
 *   FC_STEP_R_BACKWARD  c = c [+ skip];  d = c * p [+ q * r]           d may be r
 *   FC_STEP_DOT         total += sum of c * p
 *
 * u NULL: 0; by_row: u is a vector over the rows, one number for each. p NULL: 1. In the two
 * backward steps `sums` (NULL: not wanted) gets the column sums of d, one row of it for each block
 * of rows, and in all steps `total` is one double for each item: partial sums are fixed by the
 * blocks and never by the threads. c, d and p are stored even where nobody will read them.
 *
 * Where phi'' follows from a = phi(z), e phi'' need not be kept. In the steps but FC_STEP_ACTIVATE,
 * `phi` says what q holds:
 *   tanh               q is delta = e phi', and e phi'' = -2 a delta
 *   sigmoid            q is delta, and e phi'' = (1 - 2 a) delta
 *   relu, leaky_relu   p is a itself, whose sign gives phi'
 *   all else           p is phi', q is e phi''
 * phi' is kept as it was computed: 1 - a a would lose it where a unit is saturated.
 *
 * tanh, sigmoid: phi and phi' may be kept folded, as one number from which either is some additions
 * and a product away, saturated or not, see activations.inc. In FC_STEP_ACTIVATE `folded`, unless
 * NULL, is made too, and d and p, both there, are what it unfolds to; in FC_STEP_R_ACTIVATE with
 * `next` it is read instead of a and p.
 *
 * In FC_STEP_R_BACKWARD with phi tanh or sigmoid, delta may be made anew instead of read, where it
 * is cheaper than loading it: q[i, j] = p[i, j] * sum over t < rank of w[t * w_ts + i * w_is] * b[t
 * * ldb + j], and q is NULL.
 *
 * In FC_STEP_R_ACTIVATE without total and skip, where samples lie across, d = p c may go on at once
 * into a layer of few units instead of being stored: out[t, j] = u[t] + sum over i < units of w[t,
 * i] d[i, j] + v[t, i] a[i, j] for t < rank, a the step's own. Where a quadratic form is wanted,
 * nothing else needs c: it is not stored, and form[j] = sum over i < units of q c c, where e phi''
 * is kept as q, and over t < rank of delta[t, j] (2 v[t, i] d[i, j] + w[t, i] phi'' c c), with
 * phi'' = 0 or, for tanh and sigmoid, made from a and p. A delta of 0 leaves nothing, however large
 * c is. */
enum { FC_MAX_RANK = 4 };
typedef struct {
    int rank;
    const void *w;
    ptrdiff_t w_ts, w_is;
    const void *b;
    ptrdiff_t ldb;
} fc_made;

enum { FC_MAX_NARROW = 3 };
typedef struct {
    int rank; /* 0: no such layer */
    ptrdiff_t units;
    const void *w, *v; /* rows w_ts apart */
    ptrdiff_t w_ts;
    const void *u;     /* or NULL */
    const void *delta; /* for form */
    void *out, *form;  /* form NULL: not wanted */
    ptrdiff_t ldout;   /* of delta too */
} fc_onward;

typedef enum {
    FC_STEP_NONE,
    FC_STEP_ACTIVATE,
    FC_STEP_R_ACTIVATE,
    FC_STEP_BACKWARD,
    FC_STEP_R_BACKWARD,
    FC_STEP_DOT
} fc_step_kind;

typedef struct {
    fc_step_kind kind;
    fc_activation phi;
    const void *u;
    int by_row;
    void *d;
    ptrdiff_t ldd;
    void *p;
    ptrdiff_t ldp;
    void *q;
    ptrdiff_t ldq;
    const void *a;
    ptrdiff_t lda;
    void *folded;
    ptrdiff_t ldfolded;
    fc_made made;
    fc_onward next;
    const void *r;
    ptrdiff_t ldr;
    const void *skip;
    ptrdiff_t ldskip;
    void *sums;
    ptrdiff_t ldsums;
    int add_sums; /* add to what stands in `sums` and `total`, instead of starting at 0 */
    double *total;
} fc_step;

/* One term A B of a product. A (m, k) has any strides and is read one number at a time. B (k, n) is
 * read in vectors:
 *   b_rs   from one row to the next
 *   b_vs   from one vector of columns to the next: the vector's length for a padded matrix, k times
 *          that for a packed one
 *   b_cs   0; or, where B is neither padded nor packed, its column stride: B is then packed on the
 *          way. */
typedef struct {
    ptrdiff_t k;
    const void *a;
    ptrdiff_t a_rs, a_cs;
    const void *b;
    ptrdiff_t b_rs, b_vs, b_cs;
} fc_term;

enum { FC_MAX_TERMS = 2, FC_MAX_AHEAD = 6 };
/* bytes of depth up to which all that a tile reads is in the first-level cache: panels of a product
 * are four 64-byte vectors wide up to there, and three beyond */
enum { FC_SHALLOW = 512 };

typedef struct {
    const void *at;
    ptrdiff_t bytes;
} fc_ahead;

/* C (m, n) = [C +] sum over terms of A B, then the step. The output is computed in items of
 * row_block x col_block. */
typedef struct {
    ptrdiff_t m, n;
    int n_terms;
    fc_term term[FC_MAX_TERMS];
    void *c;
    ptrdiff_t ldc;
    int exact; /* C is not padded: nothing outside its m x n is touched; only FC_STEP_NONE */
    int accumulate;
    int spent; /* nobody reads C after the step: kernels may keep it elsewhere */
    int far;   /* B and the step's matrices are in no near cache: for kernels that can ask ahead */
    fc_step step;
    /* memory that will be read soon, for kernels that can ask for it */
    fc_ahead ahead[FC_MAX_AHEAD];
    /* filled by `block`; m and n where one call does all of it */
    ptrdiff_t row_block, col_block;
} fc_product;

/* A product, all of it as one item, for several vectors of a block: `job` is the first one's, the
 * rest says how far each of its matrices is from that of the next vector. Of a term either A or B
 * is shared: 0. */
enum { FC_MAX_STACK = 4 };
typedef struct {
    fc_product job;
    ptrdiff_t count;
    ptrdiff_t a[FC_MAX_TERMS], b[FC_MAX_TERMS], c, u;
    ptrdiff_t own; /* d, r, skip, sums */
} fc_stack;

/* R-backward through a layer of few units, t < rank, where samples lie across, and all that needs
 * its delta and rdelta (rank, samples):
 *   re[i, j] = sum over t of w[t, i] rdelta[t, j] + v[t, i] delta[t, j]
 *   r = re phi' + (e phi'') rz         rz stands in r; phi', e phi'' as FC_STEP_R_BACKWARD has
 *                                      them from p, a, q; q NULL with tanh or sigmoid: delta is
 *                                      made anew
 *   out[t, i] = [it +] sum over j of rdelta[t, j] a[i, j] + delta[t, j] phi' rz
 *   bias[i] = [it +] sum over j of r[i, j]
 * v NULL: first terms only. All matrices (units, samples) have the leading dimension ld and whole
 * lines of samples; past the last sample delta and rdelta are 0. */
typedef struct {
    fc_activation phi;
    int rank, add;
    const void *w, *v; /* (rank, units), rows w_ts apart */
    ptrdiff_t w_ts;
    const void *delta, *rdelta;
    ptrdiff_t ldt;
    const void *p, *a, *q;
    const void *folded; /* unless NULL: instead of p, a and q */
    void *r;
    ptrdiff_t ld;
    void *out; /* not padded */
    ptrdiff_t ldout;
    void *bias;      /* (units,), or NULL */
    ptrdiff_t ahead; /* numbers from p to what will be wanted next in its place, or 0 */
} fc_narrow;

/* What the loss keeps of a row for later: enough for rdelta = (d2 loss/dz2) rz. */
typedef struct {
    fc_loss kind;
    double divisor; /* N, or N * cols: torch's reduction="mean" */
    /* targets (rows, cols), any strides between rows; NULL with labels */
    const void *y;
    ptrdiff_t ldy;
    const int32_t *labels; /* classes (rows,), cross entropy only */
    const void *weight;    /* (rows,) or NULL */
    void *delta;
    ptrdiff_t ldd; /* dL/dz, out, padded; NULL: only the value is wanted */
    /* out, padded: cross entropy: the probabilities; else the diagonal of d2L/dz2 */
    void *h;
    ptrdiff_t ldh;
    void *s;      /* out, (rows,): cross entropy: weight * sum of targets / divisor */
    int32_t *top; /* out, (rows,): cross entropy: where the largest logit stands */
} fc_loss_rows;

/* A sweep or a sum of batch normalisation over rows of a layer. Matrices x, h, y, r, out (rows, m),
 * all of leading dimension ld; vectors k, m1, m2, k1, n1, n2 (m,). out may be any of the
 * matrices. */
typedef enum {
    FC_NORM_SCALE,   /* out = k (x - m1) */
    FC_NORM_CENTRE,  /* out = k (x - m1 - h m2) */
    FC_NORM_SHIFT,   /* out = k h + m1 */
    FC_NORM_R_SHIFT, /* out = k h + k1 r + m1 */
    FC_NORM_R_CENTRE /* out = k1 (y - m1 - h m2) + k (x - n1 - r m2 - h n2) */
} fc_norm_kind;

typedef struct {
    fc_norm_kind kind;
    const void *x, *h, *y, *r;
    void *out;
    ptrdiff_t ld;
    const void *k, *m1, *m2, *k1, *n1, *n2;
    const double *mean; /* (m,), for the sums */
    double *sums;
    ptrdiff_t ldsums; /* (2, m) */
} fc_norm;

/*   m = keep_m m + (1 - keep_m) g;  s = keep_s s + (1 - keep_s) g g
 *   theta -= rate m / (sqrt(correction s) + eps) */
typedef struct {
    double keep_m, keep_s, correction, rate, eps;
} fc_adam;

/* A rotation of the coordinates at and at + 1: the new ones are c u + s v and c v - s u. */
typedef struct {
    double c, s;
    ptrdiff_t at;
} fc_rotation;
enum { FC_TURNED = 16 }; /* columns that are turned at a time: whole vectors of every table */

/* How a table's sums are cut: what a bound on rounding has to know. Whoever changes a kernel's
 * order of summation changes these numbers with it; `summation` in kernels.pyx says what each means
 * for the count of roundings, a test measures them. */
typedef struct {
    /* products in one chain of additions, all terms together; 0: any number */
    ptrdiff_t slice;
    /* an accumulating product's chain may begin with C; else C is added to the chain's sum */
    int from_c;
    /* `block`: m rows are ceil(m / items_of) items or fewer, of item_rows or fewer; 0: one item */
    ptrdiff_t items_of, item_rows;
    /* sums along a row, and totals: so many chains side by side, then joined by halves */
    ptrdiff_t lanes;
    /* `dots`, `take`: numbers summed in REAL before double takes over; 0: double at once */
    ptrdiff_t panel;
    /* totals of steps and sums of losses along a row: in double, whatever REAL is */
    int exact_totals;
} fc_sums;

typedef struct fc_table {
    const char *name; /* "avx512", ... */
    int real_bytes;   /* 4 or 8 */
    int vector_bytes;
    fc_sums sums;

    /* --- products (gemm.inc) --- */
    void (*block)(fc_product *job); /* choose row_block and col_block from the sizes alone */
    /* how many slices of depth; all items of one are done before the next begins */
    int (*rounds)(const fc_product *job);
    void (*product)(const fc_product *job, int round, ptrdiff_t row_item, ptrdiff_t col_item,
                    void *scratch);
    /* The same for the vectors of a stack, to the same bits. Returns 0 where it has no better way
     * than one after the other: then nothing is done. */
    int (*stack)(const fc_stack *stack, void *scratch);
    /* bytes of scratch, 64-byte aligned, that one call of `product` may use */
    size_t scratch;

    /* --- a narrow layer (narrow.inc); units of the layer below it, whole lines of samples --- */
    void (*narrow)(const fc_narrow *job, ptrdiff_t units, ptrdiff_t samples);

    /* --- activations (activations.inc): a = phi(z), p = phi'(z), q = phi''(z) --- z, a, p, q
     * (rows, cols) padded; a, p, q may each be NULL, and one of them may be z itself. q is not
     * touched where phi'' is 0 everywhere (identity, relu, leaky_relu). */
    void (*activate)(fc_activation phi, ptrdiff_t rows, ptrdiff_t cols, const void *z,
                     ptrdiff_t ldz, void *a, ptrdiff_t lda, void *p, ptrdiff_t ldp, void *q,
                     ptrdiff_t ldq);

    /* a = phi(z), p = phi'(z) from n numbers folded, for tanh and sigmoid; a, p may each be NULL,
     * and one of them folded itself. A NaN in z is lost. */
    void (*unfold)(fc_activation phi, ptrdiff_t n, const void *folded, void *a, void *p);

    /* --- loss rows (losses.inc): returns the sum of weighted row losses / divisor; z (rows, cols)
     * padded. Of a row of weight 0 value, delta and h are exactly 0, whatever its z and y. --- */
    double (*loss)(const fc_loss_rows *job, ptrdiff_t rows, ptrdiff_t cols, const void *z,
                   ptrdiff_t ldz);

    /* rdelta = (d2L/dz2) rz. rz, rdelta (rows, cols) padded, may be the same; h, s, top of `job` as
     * `loss` left them. */
    void (*r_loss)(const fc_loss_rows *job, ptrdiff_t rows, ptrdiff_t cols, const void *rz,
                   ptrdiff_t ldrz, void *rdelta, ptrdiff_t ldr);

    /* rdelta = factor * <delta, rz> delta, row by row: the Fisher's place of the loss. All
     * padded. */
    void (*r_fisher)(double factor, ptrdiff_t rows, ptrdiff_t cols, const void *delta,
                     ptrdiff_t ldd, const void *rz, ptrdiff_t ldrz, void *rdelta, ptrdiff_t ldr);

    /* The same where samples lie across (across.inc): z, rz, rdelta, delta and h are (cols,
     * rows), a column for each sample; delta, h, s and top are all there. What lies past the
     * last sample, up to whole lines of 64 bytes, becomes 0 in h, delta and rdelta. */
    double (*loss_across)(const fc_loss_rows *job, ptrdiff_t rows, ptrdiff_t cols, const void *z,
                          ptrdiff_t ldz);
    void (*r_loss_across)(const fc_loss_rows *job, ptrdiff_t rows, ptrdiff_t cols, const void *rz,
                          ptrdiff_t ldrz, void *rdelta, ptrdiff_t ldr);
    void (*r_fisher_across)(double factor, ptrdiff_t rows, ptrdiff_t cols, const void *delta,
                            ptrdiff_t ldd, const void *rz, ptrdiff_t ldrz, void *rdelta,
                            ptrdiff_t ldr);

    /* --- sweeps (sweeps.inc, steps.inc) --- */
    /* out[i, j] = in[i*rs + j*cs], out padded (ldo) and its padding set to 0. */
    void (*copy)(ptrdiff_t rows, ptrdiff_t cols, const void *in, ptrdiff_t rs, ptrdiff_t cs,
                 void *out, ptrdiff_t ldo);
    /* The same into vector panels, as fc_term wants a packed B: out[(j / VL) * rows * VL + i * VL +
     * j % VL]; i0 <= i < i1. `far`: past the caches, which could not keep it until it is read. */
    void (*pack)(ptrdiff_t rows, ptrdiff_t cols, const void *in, ptrdiff_t rs, ptrdiff_t cs,
                 ptrdiff_t i0, ptrdiff_t i1, int far, void *out);
    /* Columns as rows: out[j*ldo + i] = in[i*rs + j*cs] for i0 <= i < i1 of n rows and all k
     * columns; any strides. */
    void (*columns)(ptrdiff_t n, ptrdiff_t k, const void *in, ptrdiff_t rs, ptrdiff_t cs,
                    ptrdiff_t i0, ptrdiff_t i1, void *out, ptrdiff_t ldo);
    /* The step alone on a block (rows, cols) of c whose product is done; `sums` and `total` point
     * at the block's own. */
    void (*step)(const fc_step *step, ptrdiff_t rows, ptrdiff_t cols, void *c, ptrdiff_t ldc);
    /* out (n,) = [out +] sum of `parts` vectors, each ldp after the one before, in that order. */
    void (*add_parts)(ptrdiff_t n, ptrdiff_t parts, const void *part, ptrdiff_t ldp, int add,
                      void *out);
    /* out[r, i] = sum of x[r, p n + i] y[r, p n + i] over `parts` p, parts > 0; out (rows, n) at
     * ldo, x and y at ldx and ldy, which may be 0: one row for all. */
    void (*times)(ptrdiff_t rows, ptrdiff_t parts, ptrdiff_t n, const void *x, ptrdiff_t ldx,
                  const void *y, ptrdiff_t ldy, void *out, ptrdiff_t ldo);
    /* --- rows (rows.inc): q (m, cols) and w (s, cols), rows of contiguous numbers at ldq, ldw, any
     * alignment --- */
    /* out[r, i] += <q_i, w_r>; out (s, m) at ldo. */
    void (*dots)(ptrdiff_t m, ptrdiff_t s, ptrdiff_t cols, const void *q, ptrdiff_t ldq,
                 const void *w, ptrdiff_t ldw, double *out, ptrdiff_t ldo);
    /* w_r -= sum over i of c[r, i] q_i, c (s, m) at ldc, m > 0; unless they are NULL,
     * squares[r] += ||w_r||^2 of the result. */
    void (*take)(ptrdiff_t m, ptrdiff_t s, ptrdiff_t cols, const void *q, ptrdiff_t ldq, void *w,
                 ptrdiff_t ldw, const double *c, ptrdiff_t ldc, double *squares);
    /* y = A x for a symmetric A (n, n), rows at lda; of most entries above its diagonal the mirror
     * image is read. */
    void (*symmetric)(ptrdiff_t n, const void *A, ptrdiff_t lda, const void *x, void *y);
    /* x = Z x for x (m, k), with Z the product of the rotations; k is a multiple of FC_TURNED. */
    void (*turn)(ptrdiff_t k, void *x, const fc_rotation *kept, ptrdiff_t count);
    /* out = x for n numbers, which do not overlap; whether all are finite. */
    int (*copy_finite)(ptrdiff_t n, const void *x, int far, void *out);
    /* out (n,) = alpha * x */
    void (*scale)(ptrdiff_t n, double alpha, const void *x, void *out);
    /* A step of Adam for n numbers each, of any alignment, none of which overlap. */
    void (*adam)(ptrdiff_t n, const fc_adam *how, const void *g, void *m, void *s, void *theta);
    /* Multiply-adds on registers alone, `count` in each chain; sink holds 2 vectors. Returns the
     * flops done. */
    double (*peak)(long count, void *sink);

    /* --- batch normalisation (batch_norm.inc) --- */
    /* sums[0] = sum over rows of x, sums[1] = of x h [+ y r], y NULL: the first term, h NULL: not
     * touched but for zeros; with a mean: of x - mean and (x - mean)^2. In double precision, row
     * after row. */
    void (*norm_sums)(const fc_norm *job, ptrdiff_t rows, ptrdiff_t cols);
    void (*norm)(const fc_norm *job, ptrdiff_t rows, ptrdiff_t cols);
} fc_table;

/* Index 0: float32, 1: float64. */
extern const fc_table fc_reference[2];
#ifdef FC_HAVE_VECTORS
extern const fc_table fc_baseline[2];
#endif
#ifdef FC_HAVE_X86
extern const fc_table fc_avx2[2], fc_avx512[2];
#endif
#ifdef FC_HAVE_NEON
extern const fc_table fc_neon[2];
#endif

#endif
