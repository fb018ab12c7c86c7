/* The kernel tables: arithmetic on arrays, independent of networks.
 *
 * A table contains the kernels of one instruction set for one dtype; every slot of every table is
 * valid. The passes of fastcurv/_engine call kernels through a table and do not depend on their
 * implementation, which is plain loops (the reference), BLAS, or vector code.
 *
 * Conventions of all kernels:
 *
 * - Pointers of type `void *` point to the table's real type, REAL. Strides and sizes are in
 *   elements.
 * - A "padded" matrix is row-major. Its first element is aligned to 64 bytes, and its leading
 *   dimension is a multiple of 64 bytes. The columns from `cols` to the next multiple of 64 bytes
 *   belong to the matrix: they may be read and overwritten, and no result depends on them. Other
 *   matrices are accessed only within their bounds.
 * - NaN inputs give NaN outputs. No kernel reads or changes the floating-point environment,
 *   allocates memory or fails.
 * - No result depends on the number of threads. */
#ifndef FC_KERNELS_H
#define FC_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if (defined(__GNUC__) || defined(__clang__)) && !defined(FC_NO_VECTORS)
#define FC_HAVE_VECTORS 1 /* vector extensions exist, so the vector kernels are compiled */
#if defined(__x86_64__)
#define FC_HAVE_X86 1
#elif defined(__aarch64__)
#define FC_HAVE_NEON 1
#endif
#define FC_INLINE static inline __attribute__((always_inline, unused))
/* FC_FOR_SIZE compiles a function for size, for large code that would not run faster otherwise.
 * FC_FOR_SPEED compiles a function for speed. */
#define FC_FOR_SIZE __attribute__((cold))
#define FC_FOR_SPEED __attribute__((hot, noinline))
#ifdef __clang__
#define FC_UNROLL _Pragma("unroll")
#define FC_NO_UNROLL _Pragma("nounroll")
#else
#define FC_UNROLL _Pragma("GCC unroll 16")
#define FC_NO_UNROLL _Pragma("GCC unroll 1")
#endif
#define FC_EACH(i, n) \
    FC_UNROLL         \
    for (int i = 0; i < (n); i++)
/* Advance one pointer from row to row. Without this barrier compilers compute the address of every
 * row in advance and run out of registers. */
#define FC_OPAQUE(pointer) __asm__("" : "+r"(pointer))
/* Keep x in a register. Without this barrier GCC reads x from memory for each multiply-add. */
#if defined(FC_HAVE_X86)
#define FC_IN_REGISTER(x) __asm__("" : "+v"(x))
#elif defined(FC_HAVE_NEON)
#define FC_IN_REGISTER(x) __asm__("" : "+w"(x))
#else
#define FC_IN_REGISTER(x) ((void)0)
#endif
#else
#define FC_INLINE static inline
#define FC_FOR_SIZE
#define FC_FOR_SPEED
#endif

/* Alignment in bytes of padded matrices and of each of their rows: one cache line. */
enum { FC_ALIGN = 64 };

/* Activations of hidden layers, in the order of their numbers. A new activation needs a line here,
 * its arithmetic in activations.inc (for vectors and for a single number), and a row in
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

/* Losses, in the order of their numbers. OF_ONE marks a loss that is a sum over outputs (a function
 * NAME_of in losses.inc), and OF_ROW a loss that couples the outputs of a row. A new loss of the
 * first kind needs a line here, NAME_of and a case of loss_one in losses.inc, and a row in
 * fastcurv/structure/tables.py. User-defined losses need no kernel: the engine receives their
 * derivatives, and r_loss applies these as for losses of the first kind. */
#define FC_LOSSES(OF_ONE, OF_ROW)           \
    OF_ONE(FC_MSE, mse)                     \
    OF_ROW(FC_CROSS_ENTROPY, cross_entropy) \
    OF_ONE(FC_BINARY_CROSS_ENTROPY, binary_cross_entropy)

#define FC_NUMBER(id, name) id,
#define FC_QUOTED(id, name) #name,
#define FC_OMIT(id, name)
typedef enum {
    FC_ACTIVATIONS(FC_NUMBER) FC_N_ACTIVATIONS,
    FC_PHI_CALLBACK = FC_N_ACTIVATIONS /* user-defined activation, which no kernel evaluates */
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

/* Slope of leaky ReLU for negative arguments. */
#define FC_LEAKY_RELU_SLOPE 0.01

/* Return nonzero if phi'' is not 0 everywhere. */
static inline int fc_has_curvature(fc_activation phi) {
    return phi != FC_IDENTITY && phi != FC_RELU && phi != FC_LEAKY_RELU;
}
/* Return nonzero if phi' depends only on the sign of a = phi(z). */
static inline int fc_slope_from_a(fc_activation phi) {
    return phi == FC_RELU || phi == FC_LEAKY_RELU;
}
/* Return nonzero if e phi'' can be computed from a = phi(z) and delta = e phi'. */
static inline int fc_curvature_from_delta(fc_activation phi) {
    return phi == FC_TANH || phi == FC_SIGMOID;
}

/* The epilogue of a product: an elementwise operation on a finished tile c of the output while the
 * tile is in cache. Matrices d, p, q, r and skip have the shape of the output, and u is a vector
 * over its columns; all are padded. d may be c. Other operands are distinct
 * unless the epilogue allows an exception.
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
 * If u is NULL, 0 takes its place. If `by_row` is set, u is a vector over the rows. If p is NULL, 1
 * takes its place. The two backward epilogues write the column sums of d to `sums`, one row for
 * each block of rows, unless `sums` is NULL. Every epilogue with a total computes one double of
 * `total` per item. Partial sums depend on the blocks, never on the threads. c, d and p are stored
 * even if they are not read later.
 *
 * If phi'' can be computed from a = phi(z), e phi'' need not be stored. In all epilogues except
 * FC_EPILOGUE_ACTIVATE, `phi` determines the meaning of p and q:
 *
 *   tanh               q is delta = e phi', and e phi'' = -2 a delta
 *   sigmoid            q is delta, and e phi'' = (1 - 2 a) delta
 *   relu, leaky_relu   p is a itself, whose sign gives phi'
 *   all others         p is phi', q is e phi''
 *
 * tanh and sigmoid have a stored phi', because 1 - a a would lose all accuracy for a saturated
 * unit.
 *
 * Packed pairs. For tanh and sigmoid, phi and phi' may be stored as a packed pair: one number from
 * which both are computed accurately by a few additions and a multiplication; see activations.inc.
 * If `phi_pair` is not NULL, FC_EPILOGUE_ACTIVATE also writes the packed pairs, and sets d and p,
 * which must not be NULL, to the unpacked values. FC_EPILOGUE_R_ACTIVATE with `next` reads packed
 * pairs instead of a and p.
 *
 * Recomputed delta (`recompute`). With phi tanh or sigmoid, FC_EPILOGUE_R_BACKWARD may recompute
 * delta, if that is faster than loading it. Then q is NULL, and in its place
 *
 *   q[i, j] = p[i, j] * sum over t < rank of w[t * w_ts + i * w_is] * b[t * ldb + j]
 *
 * Fused output (`next`). In the transposed layout, without total and skip, FC_EPILOGUE_R_ACTIVATE
 * may multiply d = p c by the weights w of a narrow next layer instead of storing d. With the
 * direction v of w, the direction u of the bias, and the epilogue's a,
 *
 *   out[t, j] = u[t] + sum over i < units of w[t, i] d[i, j] + v[t, i] a[i, j]        t < rank
 *
 * For a quadratic form (`form`) c is not stored, because no other kernel reads it, and
 *
 *   form[j] = sum over i < units of q c c + sum over t < rank of
 *             delta[t, j] (2 v[t, i] d[i, j] + w[t, i] phi'' c c)
 *
 * The first term is present if e phi'' is stored as q. In the second term phi'' is computed from a
 * and p for tanh and sigmoid, and is 0 otherwise. A delta of 0 contributes exactly 0. */

/* Maximum number of units of the layer above for which delta is recomputed. */
enum { FC_MAX_RANK = 4 };

/* Operands of a recomputed delta, as defined above. */
typedef struct {
    int rank;
    const void *w;
    ptrdiff_t w_ts, w_is;
    const void *b;
    ptrdiff_t ldb;
} fc_recompute;

/* Maximum number of units of a narrow output layer. */
enum { FC_MAX_NARROW = 3 };
typedef struct {
    int rank;          /* number of units of the next layer; 0: there is no fused next layer */
    ptrdiff_t units;   /* number of inputs of the next layer */
    const void *w, *v; /* (rank, units) weights and their direction, rows w_ts elements apart */
    ptrdiff_t w_ts;
    const void *u;     /* (rank,) bias of the next layer or its direction, or NULL */
    const void *delta; /* (rank, samples) dL/dz of the next layer, used only for `form` */
    void *out, *form;  /* outputs (rank, samples) and (samples,); form NULL: no quadratic form */
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
    fc_recompute recompute;
    fc_fused_output next;
    const void *r;
    ptrdiff_t ldr;
    const void *skip;
    ptrdiff_t ldskip;
    void *sums;
    ptrdiff_t ldsums;
    int add_sums; /* add to the values in `sums` and `total` instead of overwriting them */
    double *total;
} fc_epilogue;

/* One term A B of a product. A (m, k) may have any strides and is read one element at a time.
 * B (k, n) is read in vectors, with the distances, in elements,
 *
 *   b_rs   between rows
 *   b_vs   between vectors of columns: VL for a padded matrix, k VL for a packed one
 *   b_cs   between columns, if B is neither padded nor packed, in which case the product packs B
 *          while reading it; otherwise 0. */
typedef struct {
    ptrdiff_t k;
    const void *a;
    ptrdiff_t a_rs, a_cs;
    const void *b;
    ptrdiff_t b_rs, b_vs, b_cs;
} fc_term;

enum { FC_MAX_TERMS = 2, FC_MAX_AHEAD = 6 };
/* Bytes of depth up to which all operands of a tile fit in the L1 cache. Panels of a product are
 * four 64-byte vectors wide up to this depth and three for deeper products. */
enum { FC_SHALLOW_BYTES = 512 };

/* A range of memory to prefetch. */
typedef struct {
    const void *at;
    ptrdiff_t bytes;
} fc_ahead;

/* A product C (m, n) = [C +] sum over terms of A B, followed by an epilogue. The output is computed
 * in items of row_block x col_block elements. */
typedef struct {
    ptrdiff_t m, n;
    int n_terms;
    fc_term term[FC_MAX_TERMS];
    void *c;
    ptrdiff_t ldc;
    int unpadded; /* C is not padded: only its m x n elements are accessed; no epilogue */
    int accumulate;
    int c_unused; /* C is not read after the epilogue, so kernels may keep it in a buffer */
    int packs;    /* the scratch buffer has `packed` further bytes, in which kernels may pack A */
    /* B and the epilogue's matrices exceed the L2 cache, so kernels may prefetch them. */
    int exceeds_l2;
    fc_epilogue epilogue;
    /* Memory that is read after this product; kernels may prefetch it. */
    fc_ahead ahead[FC_MAX_AHEAD];
    /* Rows and columns of an item, set by the kernel `block`; m and n if a single call computes the
     * whole product. */
    ptrdiff_t row_block, col_block;
} fc_product;

/* A product for several vectors of a block, in which each vector is one item. `job` is the product
 * for the first vector. The other fields are the distances, in elements, between the matrices of
 * successive vectors. In each term A or B is shared by all vectors, with distance 0. */
enum { FC_MAX_STACK = 4 };
typedef struct {
    fc_product job;
    ptrdiff_t count;
    ptrdiff_t a[FC_MAX_TERMS], b[FC_MAX_TERMS], c, u;
    ptrdiff_t own; /* distance in elements between d, r, skip and sums of successive vectors */
} fc_stack;

/* R-backward through a narrow layer with outputs t < rank and inputs i < units, in the transposed
 * layout, fused with all operations that read delta and rdelta (rank, samples) of the layer:
 *
 *   re[i, j] = sum over t of w[t, i] rdelta[t, j] + v[t, i] delta[t, j]
 *   r[i, j] = re phi' + (e phi'') rz
 *   out[t, i] = [out +] sum over j of rdelta[t, j] a[i, j] + delta[t, j] phi' rz
 *   bias[i] = [bias +] sum over j of r[i, j]
 *
 * r holds rz on entry. phi' and e phi'' are computed from p, a and q as in FC_EPILOGUE_R_BACKWARD,
 * and delta is recomputed if q is NULL with tanh or sigmoid. If v is NULL, only the first terms of
 * re and out, and only re phi', are computed. All matrices (units, samples) have the leading
 * dimension ld and whole cache lines of samples; delta and rdelta are 0 after the last sample. */
typedef struct {
    fc_activation phi;
    int rank, add;
    const void *w, *v; /* (rank, units), rows w_ts elements apart */
    ptrdiff_t w_ts;
    const void *delta, *rdelta;
    ptrdiff_t ldt;
    const void *p, *a, *q;
    const void *phi_pair; /* packed pairs of phi and phi', which replace p, a and q, or NULL */
    void *r;
    ptrdiff_t ld;
    void *out; /* (rank, units), not padded */
    ptrdiff_t ldout;
    void *bias; /* (units,), or NULL */
    /* distance in elements from p to an address that is prefetched while p is read, or 0 */
    ptrdiff_t ahead;
} fc_narrow;

/* Arrays of a loss: its inputs, and the data that it stores for each row to compute rdelta =
 * (d2L/dz2) rz. */
typedef struct {
    fc_loss kind;
    double divisor; /* N or N * cols; the latter is reduction="mean" of PyTorch */
    /* Targets (rows, cols) with any distance ldy between rows, or NULL if there are labels. */
    const void *y;
    ptrdiff_t ldy;
    const int32_t *labels; /* classes (rows,) of cross entropy, or NULL */
    const void *weight;    /* weights (rows,), or NULL */
    void *delta;           /* output dL/dz, padded, or NULL to compute only the value */
    ptrdiff_t ldd;
    /* Output, padded: the probabilities of cross entropy, or the diagonal of d2L/dz2 of other
     * losses. */
    void *h;
    ptrdiff_t ldh;
    void *s;      /* output (rows,): weight * sum of targets / divisor, for cross entropy */
    int32_t *top; /* output (rows,): index of the largest logit, for cross entropy */
} fc_loss_rows;

/* A sweep of batch normalisation over the rows of a layer, or sums over these rows. Matrices x, h,
 * y, r, out are (rows, m) with leading dimension ld; vectors k, m1, m2, k1, n1, n2 are (m,). `out`
 * may be any of the other matrices. */
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
    const double *mean; /* (m,) mean that norm_sums subtracts, or NULL */
    double *sums;
    ptrdiff_t ldsums; /* leading dimension of sums (2, m) */
} fc_norm;

/* Coefficients of a step of Adam:
 *
 *   m = keep_m m + (1 - keep_m) g;  s = keep_s s + (1 - keep_s) g g
 *   theta -= rate m / (sqrt(correction s) + eps) */
typedef struct {
    double keep_m, keep_s, correction, rate, eps;
} fc_adam;

/* A rotation of the coordinates with indices `at` and `at` + 1. It replaces (u, v) by (c u + s v, c
 * v - s u). */
typedef struct {
    double c, s;
    ptrdiff_t at;
} fc_rotation;
enum { FC_ROTATED_COLUMNS = 16 }; /* columns per strip, a multiple of every table's VL */

/* The order of a table's sums, from which rounding bounds are derived. A change of a kernel's order
 * of summation must change these fields. `summation` in kernels.pyx documents how they determine
 * the number of roundings, and a test measures them. */
typedef struct {
    /* Maximum products in one chain of additions, all terms together; 0: unlimited. */
    ptrdiff_t slice;
    /* Nonzero if the chain of an accumulating product may start from C; zero if C is added to the
     * sum of the chain. */
    int from_c;
    /* `block` divides m rows into at most ceil(m / items_of) items of at most item_rows rows; 0:
     * one item. */
    ptrdiff_t items_of, item_rows;
    /* Number of parallel chains of a sum along a row, and of a total. The chains are joined by
     * halves. */
    ptrdiff_t lanes;
    /* Number of elements that `dots` and `subtract` sum in REAL before adding in double; 0: all
     * sums are in double. */
    ptrdiff_t panel;
    /* Nonzero if totals of epilogues and sums of losses along a row are in double for either
     * dtype. */
    int totals_in_double;
} fc_sums;

typedef struct fc_table {
    const char *name; /* for example "avx512" */
    int real_bytes;   /* size of REAL in bytes, 4 or 8 */
    int vector_bytes;
    fc_sums sums;

    /* --- products (gemm.inc) --- */
    void (*block)(fc_product *job); /* sets row_block and col_block, from the sizes only */
    /* `rounds` returns the number of slices of depth. All items of one slice must be computed
     * before the next slice begins. */
    int (*rounds)(const fc_product *job);
    void (*product)(const fc_product *job, int round, ptrdiff_t row_item, ptrdiff_t col_item,
                    void *scratch);
    /* `stack` computes a product for all vectors of a stack, with results that are bitwise
     * identical to one product per vector. It returns 0, without computing anything, if that would
     * not be faster. */
    int (*stack)(const fc_stack *stack, void *scratch);
    /* Bytes of scratch, aligned to 64 bytes, that one call of `product` may use. */
    size_t scratch;
    size_t packed; /* further bytes of scratch if `packs` of the job is set */

    /* --- a narrow layer (narrow.inc) --- */

    /* R-backward through a narrow layer with `units` inputs, as defined at fc_narrow; `samples` is
     * a whole number of cache lines. */
    void (*narrow)(const fc_narrow *job, ptrdiff_t units, ptrdiff_t samples);

    /* --- activations (activations.inc) --- */

    /* a = phi(z), p = phi'(z), q = phi''(z). The matrices (rows, cols) are padded; a, p and q may
     * each be NULL, and one of them may be z itself. q is not written if phi'' is 0 everywhere
     * (identity, relu, leaky_relu). */
    void (*activate)(fc_activation phi, ptrdiff_t rows, ptrdiff_t cols, const void *z,
                     ptrdiff_t ldz, void *a, ptrdiff_t lda, void *p, ptrdiff_t ldp, void *q,
                     ptrdiff_t ldq);

    /* a = phi(z), p = phi'(z) from n packed pairs, for tanh and sigmoid. a or p may be NULL, and
     * one of them may be `phi_pair` itself. A NaN in z is lost. */
    void (*unpack_pairs)(fc_activation phi, ptrdiff_t n, const void *phi_pair, void *a, void *p);

    /* --- losses (losses.inc) --- */

    /* Return the sum of weighted row losses / divisor, and store the outputs of fc_loss_rows.
     * z (rows, cols) is padded. For a row of weight 0, the row loss, delta and h are exactly 0 for
     * any z and y. */
    double (*loss)(const fc_loss_rows *job, ptrdiff_t rows, ptrdiff_t cols, const void *z,
                   ptrdiff_t ldz);

    /* rdelta = (d2L/dz2) rz. The matrices rz and rdelta (rows, cols) are padded and may be the
     * same; h, s and top of `job` are as stored by `loss`. */
    void (*r_loss)(const fc_loss_rows *job, ptrdiff_t rows, ptrdiff_t cols, const void *rz,
                   ptrdiff_t ldrz, void *rdelta, ptrdiff_t ldr);

    /* rdelta = factor * <delta, rz> delta for each row, which replaces r_loss for the empirical
     * Fisher matrix. All matrices are padded. */
    void (*r_fisher)(double factor, ptrdiff_t rows, ptrdiff_t cols, const void *delta,
                     ptrdiff_t ldd, const void *rz, ptrdiff_t ldrz, void *rdelta, ptrdiff_t ldr);

    /* loss, r_loss and r_fisher for the transposed layout (transposed.inc): z, rz, rdelta, delta
     * and h are (cols, rows), with one column per sample, and delta, h, s and top must not be NULL.
     * In h, delta and rdelta, columns from the last sample to the end of the cache line are set to
     * 0. */
    double (*loss_transposed)(const fc_loss_rows *job, ptrdiff_t rows, ptrdiff_t cols,
                              const void *z, ptrdiff_t ldz);
    void (*r_loss_transposed)(const fc_loss_rows *job, ptrdiff_t rows, ptrdiff_t cols,
                              const void *rz, ptrdiff_t ldrz, void *rdelta, ptrdiff_t ldr);
    void (*r_fisher_transposed)(double factor, ptrdiff_t rows, ptrdiff_t cols, const void *delta,
                                ptrdiff_t ldd, const void *rz, ptrdiff_t ldrz, void *rdelta,
                                ptrdiff_t ldr);

    /* --- sweeps (sweeps.inc, epilogues.inc) --- */
    /* out[i, j] = in[i*rs + j*cs], where out is padded with leading dimension ldo, and its padding
     * is set to 0. */
    void (*copy)(ptrdiff_t rows, ptrdiff_t cols, const void *in, ptrdiff_t rs, ptrdiff_t cs,
                 void *out, ptrdiff_t ldo);
    /* Pack a matrix into vector panels, the packed B of fc_term: out[(j / VL) * rows * VL + i * VL
     * + j % VL] = in[i*rs + j*cs] for rows i0 <= i < i1. `bypass`: use stores that bypass the
     * caches, for a result too large to stay in them until it is read. */
    void (*pack)(ptrdiff_t rows, ptrdiff_t cols, const void *in, ptrdiff_t rs, ptrdiff_t cs,
                 ptrdiff_t i0, ptrdiff_t i1, int bypass, void *out);
    /* Transpose columns to rows: out[j*ldo + i] = in[i*rs + j*cs] for rows i0 <= i < i1 of n and
     * all k columns, with any strides. */
    void (*transpose_columns)(ptrdiff_t n, ptrdiff_t k, const void *in, ptrdiff_t rs, ptrdiff_t cs,
                              ptrdiff_t i0, ptrdiff_t i1, void *out, ptrdiff_t ldo);
    /* Apply an epilogue alone to a block (rows, cols) of c whose product is complete. `sums` and
     * `total` are the addresses of the block's own results. */
    void (*epilogue)(const fc_epilogue *epilogue, ptrdiff_t rows, ptrdiff_t cols, void *c,
                     ptrdiff_t ldc);
    /* out (n,) = [out +] sum of `parts` vectors, which lie ldp elements apart and are added in
     * order. */
    void (*add_parts)(ptrdiff_t n, ptrdiff_t parts, const void *part, ptrdiff_t ldp, int add,
                      void *out);
    /* out[r, i] = sum over 0 <= p < parts of x[r, p n + i] y[r, p n + i], with parts > 0. out is
     * (rows, n) with leading dimension ldo; x and y have ldx and ldy, which are 0 if all rows share
     * one row. */
    void (*multiply_and_sum)(ptrdiff_t rows, ptrdiff_t parts, ptrdiff_t n, const void *x,
                             ptrdiff_t ldx, const void *y, ptrdiff_t ldy, void *out, ptrdiff_t ldo);
    /* --- sweeps over rows (rows.inc): q (m, cols) and w (s, cols) have contiguous rows, leading
     * dimensions ldq and ldw, and any alignment --- */
    /* out[r, i] += <q_i, w_r>, where out (s, m) has leading dimension ldo. */
    void (*dots)(ptrdiff_t m, ptrdiff_t s, ptrdiff_t cols, const void *q, ptrdiff_t ldq,
                 const void *w, ptrdiff_t ldw, double *out, ptrdiff_t ldo);
    /* w_r -= sum over i of c[r, i] q_i, where c (s, m) has leading dimension ldc and m > 0. Unless
     * `squares` is NULL, squares[r] += ||w_r||^2 of the new rows. */
    void (*subtract)(ptrdiff_t m, ptrdiff_t s, ptrdiff_t cols, const void *q, ptrdiff_t ldq,
                     void *w, ptrdiff_t ldw, const double *c, ptrdiff_t ldc, double *squares);
    /* x = Z x for x (m, k), where Z is the product of the rotations and k is a multiple of
     * FC_ROTATED_COLUMNS. */
    void (*rotate)(ptrdiff_t k, void *x, const fc_rotation *kept, ptrdiff_t count);
    /* out = x for n elements, without overlap of x and out; `bypass` as for `pack`. Returns nonzero
     * if all elements are finite. */
    int (*copy_finite)(ptrdiff_t n, const void *x, int bypass, void *out);
    /* out = alpha x for n elements. */
    void (*scale)(ptrdiff_t n, double alpha, const void *x, void *out);
    /* A step of Adam for n elements of each array, with any alignment and without overlap. */
    void (*adam)(ptrdiff_t n, const fc_adam *how, const void *g, void *m, void *s, void *theta);
    /* Run multiply-adds on registers, `count` per chain, and return the number of flops. `sink`
     * holds 2 vectors, which are operands and receive a result. */
    double (*peak)(long count, void *sink);

    /* --- batch normalisation (batch_norm.inc) --- */
    /* sums[0] = sum over rows of x, sums[1] = sum of x h [+ y r]. If y is NULL, only the first term
     * is computed; if h is NULL, sums[1] is 0. With a mean, the sums are those of x - mean and (x -
     * mean)^2. Rows are added in order, in double precision. */
    void (*norm_sums)(const fc_norm *job, ptrdiff_t rows, ptrdiff_t cols);
    void (*norm)(const fc_norm *job, ptrdiff_t rows, ptrdiff_t cols);
} fc_table;

/* Each array holds two tables: [0] for float32 and [1] for float64. */
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
