/* The kernel tables: arithmetic on arrays, independent of networks.
 *
 * A table serves one instruction set and one dtype; every slot of every table is valid. The
 * passes of fastcurv/_engine call through a table and do not depend on its implementation: plain
 * loops (the reference), BLAS, or vector kernels.
 *
 * Conventions for every slot | - Pointers are `void *` to the table's real type; strides and
 * sizes count elements. | - A "padded" matrix is row-major, its first element is at a multiple
 * of 64 bytes, and its leading | dimension is a multiple of 64 bytes. | The columns between
 * `cols` and the next multiple of 64 bytes belong to the matrix: they may be | read and
 * overwritten, and no result depends on them. Matrices that are not called padded are | accessed
 * inside their bounds only. | - NaN inputs give NaN outputs; no slot reads or changes the
 * floating-point environment, allocates | memory or fails. | - No result depends on the number
 * of threads. | */
#ifndef FC_KERNELS_H
#define FC_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if (defined(__GNUC__) || defined(__clang__)) && !defined(FC_NO_VECTORS)
#define FC_HAVE_VECTORS 1 /* vector extensions are available, so the vector kernels are compiled */
#if defined(__x86_64__)
#define FC_HAVE_X86 1
#elif defined(__aarch64__)
#define FC_HAVE_NEON 1
#endif
#define FC_INLINE static inline __attribute__((always_inline, unused))
/* Compiled for size: large code that would not be faster otherwise. */
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
/* Advance one pointer from row to row; otherwise compilers compute an address for every row
 * first and run out of registers. */
#define FC_STEPPED(pointer) __asm__("" : "+r"(pointer))
/* Keep x in a register; otherwise GCC reads it again from memory for each multiply-add. */
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

/* alignment in bytes of padded matrices and of each of their rows: a cache line */
enum { FC_ALIGN = 64 };

/* Activations of hidden layers, in the order of their numbers. A new one needs a line here, its
 * arithmetic in activations.inc (for vectors and for one number), and a row in
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

/* Losses, in the order of their numbers: OF_ONE if each output has a term of its own (a function
 * NAME_of in losses.inc), OF_ROW if a row's outputs are coupled. A new one of the first kind
 * needs a line here, NAME_of and its case in loss_one in losses.inc, and a row in
 * fastcurv/structure/tables.py. User-defined losses need none of this: the engine receives their
 * derivatives, and r_loss treats them like the first kind. */
#define FC_LOSSES(OF_ONE, OF_ROW)           \
    OF_ONE(FC_MSE, mse)                     \
    OF_ROW(FC_CROSS_ENTROPY, cross_entropy) \
    OF_ONE(FC_BINARY_CROSS_ENTROPY, binary_cross_entropy)

#define FC_NUMBER(id, name) id,
#define FC_QUOTED(id, name) #name,
#define FC_NOTHING(id, name)
typedef enum {
    FC_ACTIVATIONS(FC_NUMBER) FC_N_ACTIVATIONS,
    FC_PHI_CALLBACK = FC_N_ACTIVATIONS /* user-defined function: no kernel evaluates phi */
} fc_activation;
typedef enum {
    FC_LOSSES(FC_NUMBER, FC_NUMBER) FC_N_LOSSES,
    FC_LOSS_CALLBACK = FC_N_LOSSES
} fc_loss;
FC_INLINE const char *fc_activation_name(int phi) {
    static const char *const names[] = {FC_ACTIVATIONS(FC_QUOTED)};
    return names[phi];
}
FC_INLINE const char *fc_loss_name(int loss) {
    static const char *const names[] = {FC_LOSSES(FC_QUOTED, FC_QUOTED)};
    return names[loss];
}

/* slope of leaky relu for negative arguments */
#define FC_LEAK 0.01

/* Return nonzero if phi'' is not 0 everywhere. */
static inline int fc_has_curvature(fc_activation phi) {
    return phi != FC_IDENTITY && phi != FC_RELU && phi != FC_LEAKY_RELU;
}
/* Return nonzero if phi' is a function of the sign of a = phi(z). */
static inline int fc_slope_from_a(fc_activation phi) {
    return phi == FC_RELU || phi == FC_LEAKY_RELU;
}
/* Return nonzero if e phi'' is a function of a and delta = e phi'. */
static inline int fc_curvature_from_delta(fc_activation phi) {
    return phi == FC_TANH || phi == FC_SIGMOID;
}

/* The epilogue of a product: an elementwise operation on a finished tile of the output while it
 * is in cache. c is the tile; d, p, q, r, skip are matrices of the output's shape, and u is a
 * vector over its columns, all padded. d may be c; otherwise all operands are distinct.
 *
 *   FC_EPILOGUE_NONE        c
 *   FC_EPILOGUE_ACTIVATE    c = c + u;  d = phi(c) [+ skip];  p = phi'(c);  q = phi''(c)
 *                       p may be c; p, q may be NULL
 *   FC_EPILOGUE_R_ACTIVATE  c = c + u;  d = p * c [+ skip];  total += sum of q * c * c
 *                       total may be NULL
 *   FC_EPILOGUE_BACKWARD    c = c [+ skip];  d = c * p;  q = c * q         q may be NULL
 *   FC_EPILOGUE_R_BACKWARD  c = c [+ skip];  d = c * p [+ q * r]           d may be r
 *   FC_EPILOGUE_DOT         total += sum of c * p
 *
 * If u is NULL, it counts as 0; if `by_row`, u is a vector over the rows, one number for each.
 * If p is NULL, it counts as 1. In the two backward epilogues `sums`, unless NULL, receives the
 * column sums of d, one row of it for each block of rows; in all epilogues `total` is one double
 * for each item. Partial sums are determined by the blocks and never by the threads. c, d and p
 * are stored even if they are not read later.
 *
 * If phi'' follows from a = phi(z), e phi'' need not be stored. In all epilogues except
 * FC_EPILOGUE_ACTIVATE, `phi` determines what q holds:
 *
 *   tanh               q is delta = e phi', and e phi'' = -2 a delta
 *   sigmoid            q is delta, and e phi'' = (1 - 2 a) delta
 *   relu, leaky_relu   p is a itself, whose sign gives phi'
 *   all others         p is phi', q is e phi''
 *
 * phi' is stored as computed, because 1 - a a would lose it if a unit is saturated.
 *
 * For tanh and sigmoid, phi and phi' may be stored as a packed pair: one number from which both
 * follow by a few additions and a product, saturated or not; see activations.inc. If `phi_pair` is
 * not NULL, FC_EPILOGUE_ACTIVATE also writes the packed pairs, and d and p, which must both exist,
 * are what they unpack to; FC_EPILOGUE_R_ACTIVATE with `next` reads them instead of a and p.
 *
 * FC_EPILOGUE_R_BACKWARD with phi tanh or sigmoid may recompute delta instead of reading it, if that
 * is cheaper than loading it: q[i, j] = p[i, j] * sum over t < rank of w[t * w_ts + i * w_is] *
 * b[t * ldb + j], and q is NULL.
 *
 * FC_EPILOGUE_R_ACTIVATE without total and skip, in the transposed layout, may multiply d = p c at
 * once by the weights of a following layer of few units instead of storing d: out[t, j] = u[t] +
 * sum over i < units of w[t, i] d[i, j] + v[t, i] a[i, j] for t < rank, with the epilogue's own
 * a. For a quadratic form nothing else needs c, so c is not stored, and form[j] is the sum over
 * i < units of q c c, if e phi'' is stored as q, plus the sum over t < rank of delta[t, j] (2
 * v[t, i] d[i, j] + w[t, i] phi'' c c), with phi'' = 0 or, for tanh and sigmoid, computed from a
 * and p. A delta of 0 contributes nothing, however large c is. */
/* Maximum number of units above for which delta is recomputed. */
enum { FC_MAX_RANK = 4 };
typedef struct {
    int rank;
    const void *w;
    ptrdiff_t w_ts, w_is;
    const void *b;
    ptrdiff_t ldb;
} fc_made;

/* Maximum units of a narrow output layer. */
enum { FC_MAX_NARROW = 3 };
typedef struct {
    int rank;          /* units of the following layer; 0: no such layer */
    ptrdiff_t units;   /* units of the layer below it */
    const void *w, *v; /* rows w_ts numbers apart */
    ptrdiff_t w_ts;
    const void *u;     /* bias of the following layer, or NULL */
    const void *delta; /* used for `form` only */
    void *out, *form;  /* form NULL: no quadratic form */
    ptrdiff_t ldout;   /* leading dimension of out and delta */
} fc_fused_output;

typedef enum {
    FC_EPILOGUE_NONE,
    FC_EPILOGUE_ACTIVATE,
    FC_EPILOGUE_R_ACTIVATE,
    FC_EPILOGUE_BACKWARD,
    FC_EPILOGUE_R_BACKWARD,
    FC_EPILOGUE_DOT
} fc_epilogue_kind;

typedef struct {
    fc_epilogue_kind kind;
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
    void *phi_pair;
    ptrdiff_t ldphi_pair;
    fc_made made;
    fc_fused_output next;
    const void *r;
    ptrdiff_t ldr;
    const void *skip;
    ptrdiff_t ldskip;
    void *sums;
    ptrdiff_t ldsums;
    int add_sums; /* add to the contents of `sums` and `total` instead of starting at 0 */
    double *total;
} fc_epilogue;

/* One term A B of a product. A (m, k) has any strides and is read one number at a time. B (k, n)
 * is read in vectors:
 *
 *   b_rs   distance of rows
 *   b_vs   distance of vectors of columns: the vector's length for a padded matrix, k times that
 *          for a packed one
 *   b_cs   0, or the column stride of a B that is neither padded nor packed, which the product then
 *          packs while reading it. */
typedef struct {
    ptrdiff_t k;
    const void *a;
    ptrdiff_t a_rs, a_cs;
    const void *b;
    ptrdiff_t b_rs, b_vs, b_cs;
} fc_term;

enum { FC_MAX_TERMS = 2, FC_MAX_AHEAD = 6 };
/* Bytes of depth up to which all operands of a tile are in the first-level cache. Panels of a
 * product are four 64-byte vectors wide up to this depth, and three beyond. */
enum { FC_SHALLOW = 512 };

/* A range of memory to prefetch. */
typedef struct {
    const void *at;
    ptrdiff_t bytes;
} fc_ahead;

/* C (m, n) = [C +] sum over terms of A B, followed by the epilogue. The output is computed in
 * items of row_block x col_block. */
typedef struct {
    ptrdiff_t m, n;
    int n_terms;
    fc_term term[FC_MAX_TERMS];
    void *c;
    ptrdiff_t ldc;
    int exact; /* C is not padded: only its m x n numbers are accessed, and there is no epilogue */
    int accumulate;
    int spent; /* C is not read after the epilogue, so kernels may keep it elsewhere */
    int packs; /* scratch has the table's `packed` bytes more, so kernels may pack A there */
    int far;   /* B and the epilogue's matrices exceed the L2 cache, so kernels may prefetch them */
    fc_epilogue epilogue;
    /* memory that is read after this product, for kernels that can prefetch it */
    fc_ahead ahead[FC_MAX_AHEAD];
    /* set by `block`; m and n if one call computes the whole product */
    ptrdiff_t row_block, col_block;
} fc_product;

/* A product for several vectors of a block, each as one item. `job` belongs to the first vector;
 * the other fields are the distances of each matrix from that of the next vector. In each term A
 * or B is shared by all vectors, with distance 0. */
enum { FC_MAX_STACK = 4 };
typedef struct {
    fc_product job;
    ptrdiff_t count;
    ptrdiff_t a[FC_MAX_TERMS], b[FC_MAX_TERMS], c, u;
    ptrdiff_t own; /* distance of d, r, skip and sums */
} fc_stack;

/* R-backward through a layer of few units, t < rank, in the transposed layout, fused with all
 * that needs its delta and rdelta (rank, samples):
 *
 *   re[i, j] = sum over t of w[t, i] rdelta[t, j] + v[t, i] delta[t, j]
 *   r = re phi' + (e phi'') rz         r holds rz before; phi' and e phi'' follow from p, a, q as
 *                                      for FC_EPILOGUE_R_BACKWARD; if q is NULL with tanh or sigmoid,
 *                                      delta is recomputed
 *   out[t, i] = [out +] sum over j of rdelta[t, j] a[i, j] + delta[t, j] phi' rz
 *   bias[i] = [bias +] sum over j of r[i, j]
 *
 * If v is NULL, only the first terms are computed. All matrices (units, samples) have the
 * leading dimension ld and whole cache lines of samples; delta and rdelta are 0 past the last
 * sample. */
typedef struct {
    fc_activation phi;
    int rank, add;
    const void *w, *v; /* (rank, units), rows w_ts apart */
    ptrdiff_t w_ts;
    const void *delta, *rdelta;
    ptrdiff_t ldt;
    const void *p, *a, *q;
    const void *phi_pair; /* packed pairs of phi and phi', replacing p, a and q, or NULL */
    void *r;
    ptrdiff_t ld;
    void *out; /* not padded */
    ptrdiff_t ldout;
    void *bias;      /* (units,), or NULL */
    ptrdiff_t ahead; /* numbers from p to the address to prefetch in its place, or 0 */
} fc_narrow;

/* Arrays of a loss: inputs, and what it stores of each row to compute rdelta = (d2 loss/dz2) rz. */
typedef struct {
    fc_loss kind;
    double divisor; /* N, or N * cols: torch's reduction="mean" */
    /* targets (rows, cols), any distance between rows; NULL with labels */
    const void *y;
    ptrdiff_t ldy;
    const int32_t *labels; /* classes (rows,), cross entropy only */
    const void *weight;    /* (rows,) or NULL */
    void *delta;
    ptrdiff_t ldd; /* dL/dz, output, padded; NULL: only the value is computed */
    /* output, padded: for cross entropy the probabilities, else the diagonal of d2L/dz2 */
    void *h;
    ptrdiff_t ldh;
    void *s;      /* output, (rows,): for cross entropy weight * sum of targets / divisor */
    int32_t *top; /* output, (rows,): for cross entropy the index of the largest logit */
} fc_loss_rows;

/* A sweep or a sum of batch normalisation over rows of a layer. Matrices x, h, y, r, out are
 * (rows, m) with leading dimension ld; vectors k, m1, m2, k1, n1, n2 are (m,). out may be any of
 * the matrices. */
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
    const double *mean; /* (m,), for the sums; NULL: not centred */
    double *sums;
    ptrdiff_t ldsums; /* (2, m) */
} fc_norm;

/* Coefficients of a step of Adam:
 *
 *   m = keep_m m + (1 - keep_m) g;  s = keep_s s + (1 - keep_s) g g
 *   theta -= rate m / (sqrt(correction s) + eps) */
typedef struct {
    double keep_m, keep_s, correction, rate, eps;
} fc_adam;

/* A rotation of the coordinates `at` and `at` + 1, u and v: the new ones are c u + s v and c v -
 * s u. */
typedef struct {
    double c, s;
    ptrdiff_t at;
} fc_rotation;
enum { FC_ROTATED_COLUMNS = 16 }; /* columns rotated at one time: whole vectors of every table */

/* The order of a table's sums, as used by bounds on rounding. A change of a kernel's order of
 * summation must change these numbers; `summation` in kernels.pyx documents their meaning for
 * the count of roundings, and a test measures them. */
typedef struct {
    /* maximum products in one chain of additions, all terms together; 0: any number */
    ptrdiff_t slice;
    /* nonzero if an accumulating product's chain may start from C; else C is added to the
     * chain's sum */
    int from_c;
    /* `block` cuts m rows into at most ceil(m / items_of) items of at most item_rows; 0: one
     * item */
    ptrdiff_t items_of, item_rows;
    /* number of parallel chains of sums along a row, and of totals, which are then joined by
     * halves */
    ptrdiff_t lanes;
    /* numbers that `dots` and `take` sum in REAL before adding in double; 0: double throughout */
    ptrdiff_t panel;
    /* totals of epilogues and sums of losses along a row are in double, whatever REAL is */
    int exact_totals;
} fc_sums;

typedef struct fc_table {
    const char *name; /* "avx512", ... */
    int real_bytes;   /* 4 or 8 */
    int vector_bytes;
    fc_sums sums;

    /* --- products (gemm.inc) --- */
    void (*block)(fc_product *job); /* chooses row_block and col_block from the sizes alone */
    /* returns the number of slices of depth; all items of one slice are done before the next
     * begins */
    int (*rounds)(const fc_product *job);
    void (*product)(const fc_product *job, int round, ptrdiff_t row_item, ptrdiff_t col_item,
                    void *scratch);
    /* The product for the vectors of a stack, bitwise identical to one after the other. Returns
     * 0, without computing anything, if that is not faster. */
    int (*stack)(const fc_stack *stack, void *scratch);
    /* bytes of scratch, 64-byte aligned, that one call of `product` may use */
    size_t scratch;
    size_t packed; /* further bytes of it if the job `packs` */

    /* --- a narrow layer (narrow.inc): `units` of the layer below it, whole cache lines of
     * samples --- */
    void (*narrow)(const fc_narrow *job, ptrdiff_t units, ptrdiff_t samples);

    /* --- activations (activations.inc): a = phi(z), p = phi'(z), q = phi''(z) --- z, a, p, q
     * (rows, cols) are padded; a, p, q may each be NULL, and one of them may be z itself. q is
     * not written if phi'' is 0 everywhere (identity, relu, leaky_relu). */
    void (*activate)(fc_activation phi, ptrdiff_t rows, ptrdiff_t cols, const void *z,
                     ptrdiff_t ldz, void *a, ptrdiff_t lda, void *p, ptrdiff_t ldp, void *q,
                     ptrdiff_t ldq);

    /* a = phi(z), p = phi'(z) from n packed pairs, for tanh and sigmoid; a, p may each be NULL,
     * and one of them may be `phi_pair` itself. A NaN in z is lost. */
    void (*unpack_pairs)(fc_activation phi, ptrdiff_t n, const void *phi_pair, void *a, void *p);

    /* --- loss rows (losses.inc): returns the sum of weighted row losses / divisor; z (rows,
     * cols) is padded. For a row of weight 0, value, delta and h are exactly 0, whatever its z
     * and y. --- */
    double (*loss)(const fc_loss_rows *job, ptrdiff_t rows, ptrdiff_t cols, const void *z,
                   ptrdiff_t ldz);

    /* rdelta = (d2L/dz2) rz. rz, rdelta (rows, cols) are padded and may be the same matrix; h,
     * s, top of `job` are as `loss` wrote them. */
    void (*r_loss)(const fc_loss_rows *job, ptrdiff_t rows, ptrdiff_t cols, const void *rz,
                   ptrdiff_t ldrz, void *rdelta, ptrdiff_t ldr);

    /* rdelta = factor * <delta, rz> delta, row by row: the counterpart of r_loss for the
     * empirical Fisher matrix. All matrices are padded. */
    void (*r_fisher)(double factor, ptrdiff_t rows, ptrdiff_t cols, const void *delta,
                     ptrdiff_t ldd, const void *rz, ptrdiff_t ldrz, void *rdelta, ptrdiff_t ldr);

    /* The same three operations in the transposed layout (transposed.inc): z, rz, rdelta, delta and
     * h are (cols, rows), one column per sample; delta, h, s and top must exist. The columns
     * past the last sample, up to a whole cache line, become 0 in h, delta and rdelta. */
    double (*loss_transposed)(const fc_loss_rows *job, ptrdiff_t rows, ptrdiff_t cols,
                              const void *z, ptrdiff_t ldz);
    void (*r_loss_transposed)(const fc_loss_rows *job, ptrdiff_t rows, ptrdiff_t cols,
                              const void *rz, ptrdiff_t ldrz, void *rdelta, ptrdiff_t ldr);
    void (*r_fisher_transposed)(double factor, ptrdiff_t rows, ptrdiff_t cols, const void *delta,
                                ptrdiff_t ldd, const void *rz, ptrdiff_t ldrz, void *rdelta,
                                ptrdiff_t ldr);

    /* --- sweeps (sweeps.inc, epilogues.inc) --- */
    /* out[i, j] = in[i*rs + j*cs]; out is padded (ldo), and its padding is set to 0. */
    void (*copy)(ptrdiff_t rows, ptrdiff_t cols, const void *in, ptrdiff_t rs, ptrdiff_t cs,
                 void *out, ptrdiff_t ldo);
    /* The same into vector panels, the packed B of fc_term: out[(j / VL) * rows * VL + i * VL +
     * j % VL] for i0 <= i < i1. `far`: write past the caches, which could not hold the result
     * until it is read. */
    void (*pack)(ptrdiff_t rows, ptrdiff_t cols, const void *in, ptrdiff_t rs, ptrdiff_t cs,
                 ptrdiff_t i0, ptrdiff_t i1, int far, void *out);
    /* Transpose columns to rows: out[j*ldo + i] = in[i*rs + j*cs] for i0 <= i < i1 of n rows and
     * all k columns; any strides. */
    void (*columns)(ptrdiff_t n, ptrdiff_t k, const void *in, ptrdiff_t rs, ptrdiff_t cs,
                    ptrdiff_t i0, ptrdiff_t i1, void *out, ptrdiff_t ldo);
    /* The epilogue alone on a block (rows, cols) of c whose product is done; `sums` and `total`
     * point at the block's own results. */
    void (*epilogue)(const fc_epilogue *epilogue, ptrdiff_t rows, ptrdiff_t cols, void *c,
                     ptrdiff_t ldc);
    /* out (n,) = [out +] sum of `parts` vectors, ldp numbers apart, in that order. */
    void (*add_parts)(ptrdiff_t n, ptrdiff_t parts, const void *part, ptrdiff_t ldp, int add,
                      void *out);
    /* out[r, i] = sum of x[r, p n + i] y[r, p n + i] over p < parts, parts > 0; out (rows, n)
     * with leading dimension ldo, x and y with ldx and ldy, which may be 0 for one row shared by
     * all. */
    void (*times)(ptrdiff_t rows, ptrdiff_t parts, ptrdiff_t n, const void *x, ptrdiff_t ldx,
                  const void *y, ptrdiff_t ldy, void *out, ptrdiff_t ldo);
    /* --- rows (rows.inc): q (m, cols) and w (s, cols), rows of contiguous numbers with leading
     * dimensions ldq, ldw, of any alignment --- */
    /* out[r, i] += <q_i, w_r>; out (s, m) with leading dimension ldo. */
    void (*dots)(ptrdiff_t m, ptrdiff_t s, ptrdiff_t cols, const void *q, ptrdiff_t ldq,
                 const void *w, ptrdiff_t ldw, double *out, ptrdiff_t ldo);
    /* w_r -= sum over i of c[r, i] q_i, c (s, m) with leading dimension ldc, m > 0; unless
     * `squares` is NULL, squares[r] += ||w_r||^2 of the result. */
    void (*take)(ptrdiff_t m, ptrdiff_t s, ptrdiff_t cols, const void *q, ptrdiff_t ldq, void *w,
                 ptrdiff_t ldw, const double *c, ptrdiff_t ldc, double *squares);
    /* y = A x for a symmetric A (n, n) with leading dimension lda; most entries above the
     * diagonal are not read, their mirror images are. */
    void (*symmetric)(ptrdiff_t n, const void *A, ptrdiff_t lda, const void *x, void *y);
    /* x = Z x for x (m, k), with Z the product of the rotations; k is a multiple of FC_ROTATED_COLUMNS. */
    void (*rotate)(ptrdiff_t k, void *x, const fc_rotation *kept, ptrdiff_t count);
    /* out = x for n numbers that do not overlap; returns nonzero if all are finite. */
    int (*copy_finite)(ptrdiff_t n, const void *x, int far, void *out);
    /* out (n,) = alpha * x */
    void (*scale)(ptrdiff_t n, double alpha, const void *x, void *out);
    /* A step of Adam for n numbers of each array, of any alignment and without overlap. */
    void (*adam)(ptrdiff_t n, const fc_adam *how, const void *g, void *m, void *s, void *theta);
    /* Multiply-adds on registers alone, `count` per chain; sink holds 2 vectors. Returns the
     * number of flops. */
    double (*peak)(long count, void *sink);

    /* --- batch normalisation (batch_norm.inc) --- */
    /* sums[0] = sum over rows of x, sums[1] = sum of x h [+ y r]. If y is NULL, only the first
     * term is computed; if h is NULL, sums[1] is 0. With a mean, the sums are of x - mean and (x
     * - mean)^2. In double precision, row after row. */
    void (*norm_sums)(const fc_norm *job, ptrdiff_t rows, ptrdiff_t cols);
    void (*norm)(const fc_norm *job, ptrdiff_t rows, ptrdiff_t cols);
} fc_table;

/* index 0: float32, 1: float64 */
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
