/* The kernels on their own, without Python: every slot of a vector table against the reference,
 * at difficult sizes, in both dtypes.
 *
 * Compiled for aarch64 it tests fc_neon, on x86-64 fc_avx2 and fc_avx512 if the CPU has them,
 * and fc_baseline on both. CONTRIBUTING.md has the commands that run it under emulation, under
 * wine and under valgrind.
 *
 * Arguments name the tables; without arguments, all tables are tested. Prints "N passed, M failed";
 * the exit status is 0 if M is 0. Numbers come from a fixed
 * generator.
 *
 * Padding holds NaN when a kernel is called: no result may depend on it. Each matrix ends, or
 * begins, at a protected page, with canaries at its other end. */
#include "kernels.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <malloc.h>
#define aligned_alloc(alignment, size) _aligned_malloc(size, alignment)
#define free(block) _aligned_free(block)
#elif !defined FC_HEAP /* valgrind itself watches the heap */
#define FC_GUARDED
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

/* The BLAS table over plain loops, with dimensions cut to 5 as those beyond 32 bits are. */
#define FC_BLAS_MAX_SIZE 5
#define fc_blas_over blas_over_loops
#include "blas.c"
#undef fc_blas_over

#include "selftest_matrices.inc" /* numbers, matrices, what is checked of them */
#include "selftest_products.inc" /* products, their epilogues, several at once */
#include "selftest_narrow.inc"   /* a layer of few units, transposed layout */
#include "selftest_losses.inc"   /* activations, losses; both layouts */
#include "selftest_sweeps.inc"   /* copies, sums, rows of a basis, batch normalisation */

/* --- BLAS ------------------------------------------------------------------------------------- */

/* Fortran's gemm, on column-major matrices. */
#define GEMM(name, real)                                                                         \
    static void name(char *ta, char *tb, int *m, int *n, int *k, real *alpha, real *a, int *lda, \
                     real *b, int *ldb, real *beta, real *c, int *ldc) {                         \
        check(*m <= FC_BLAS_MAX_SIZE && *n <= FC_BLAS_MAX_SIZE && *k <= FC_BLAS_MAX_SIZE,        \
              "dimensions", *m);                                                                 \
        check(*lda >= (*ta == 'N' ? *m : *k) && *ldb >= (*tb == 'N' ? *k : *n) && *ldc >= *m,    \
              "leading dimensions", *lda);                                                       \
        for (int i = 0; i < *m; i++)                                                             \
            for (int j = 0; j < *n; j++) {                                                       \
                real sum = 0;                                                                    \
                for (int l = 0; l < *k; l++)                                                     \
                    sum += a[*ta == 'N' ? i + (ptrdiff_t)l * *lda : l + (ptrdiff_t)i * *lda] *   \
                           b[*tb == 'N' ? l + (ptrdiff_t)j * *ldb : j + (ptrdiff_t)l * *ldb];    \
                real *to = c + i + (ptrdiff_t)j * *ldc;                                          \
                *to = *alpha * sum + (*beta == 0 ? 0 : *beta * *to);                             \
            }                                                                                    \
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
                for (int form = 0; form < 4; form++)
                    test_product(&blas[wide], wide, m, n, (3 * m + 5 * n) % 13 + 1, form,
                                 (int)((m + n) % 2), (int)((m + form) % 2));
    printf("%-9s %6d passed, %d failed\n", "blas", passed - so_far, failed - before);
}

/* --- one table -------------------------------------------------------------------------------- */

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
                    test_product(K, wide, length(i), length(5 * i + 3 * j + 1),
                                 length(7 * i + j + 2), form, (i + j) % 2, (i + form) % 2);
                    test_product(K, wide, length(3 * i + j), length(i), 100 + 13 * i + 97 * j, form,
                                 (i + j + 1) % 2, (i + form) % 2);
                }
        test_product(K, wide, 150, 210, 300, 0, 0, 0),
            test_product(K, wide, 140, 200, 270, 1, 1, 1),
            test_product(K, wide, 71, 133, 820, 0, 1, 1),
            test_product(K, wide, 61, 190, 131, 3, 1, 1);
        for (int kind = FC_EPILOGUE_NONE; kind <= FC_EPILOGUE_DOT; kind++)
            for (int use = 0; use < 128; use++) {
                if (!(use & USE_P) && (use & USE_Q || kind == FC_EPILOGUE_DOT)) continue;
                if (use & USE_ROW && !(use & USE_U)) continue;
                if (use & USE_MADE &&
                    (kind != FC_EPILOGUE_R_BACKWARD || !(use & USE_P) || use & (USE_Q | USE_U)))
                    continue;
                const fc_activation phis[] = {FC_IDENTITY, FC_TANH, FC_SIGMOID, FC_RELU,
                                              FC_LEAKY_RELU};
                const ptrdiff_t depths[] = {0, 7, 40, 150};
                for (int f = 0; f < 5; f++)
                    for (int k = 0; k < 4 && (!(use & USE_MADE) || f == 1 || f == 2); k++)
                        test_step(K, R, wide, length(use + 3 * f + k),
                                  length(3 * use + f + 5 * kind), kind,
                                  kind == FC_EPILOGUE_ACTIVATE
                                      ? (fc_activation)((use + f) % FC_N_ACTIVATIONS)
                                  : use & USE_P ? phis[f]
                                                : FC_IDENTITY,
                                  use, depths[k]);
            }
        for (int i = 0; i < N_LENGTHS; i++) {
            for (int phi = 0; phi < FC_N_ACTIVATIONS; phi++)
                for (int in_place = 0; in_place < 4; in_place++)
                    test_activate(K, R, wide, length(3 * i + phi), length(i), (fc_activation)phi,
                                  in_place);
            test_fold(K, R, wide, 1 + i % 3, length(5 * i), FC_TANH);
            test_fold(K, R, wide, 1 + i % 4, length(3 * i + 2), FC_SIGMOID);
            for (int kind = FC_MSE; kind <= FC_BINARY_CROSS_ENTROPY; kind++)
                for (int labels = 0; labels <= (kind == FC_CROSS_ENTROPY); labels++)
                    for (int j = 0; j < 2; j++)
                        test_loss(K, R, wide, length(5 * i + 3 + j), length(i), (fc_loss)kind,
                                  labels);
            for (int kind = FC_MSE; kind <= FC_BINARY_CROSS_ENTROPY; kind++)
                for (int j = 0; j < 4; j++)
                    if (kind == FC_CROSS_ENTROPY || j % 2 == 0)
                        test_across(K, R, wide, length(3 * i + 5 * kind + j), length(i),
                                    (fc_loss)kind, j % 2, j / 2);
            for (int j = 0; j < 4; j++) test_sweeps(K, R, wide, length(i), length(i + 3 * j));
            for (int j = 0; j < 3; j++)
                test_rows(K, R, wide, 1 + (i + j) % 9, 1 + i % 5,
                          j == 2 ? 2048 * (i % 3) + length(i) : length(i + j));
            test_norm(K, R, wide, length(3 * i + 1), length(i));
            test_narrow(K, R, wide, length(5 * i + 1), length(i), i % 4 ? length(3 * i) : 150);
            for (int outer = 0; outer < 2; outer++)
                for (int terms = 1; terms <= 2; terms++)
                    for (int j = 0; j < 4; j++)
                        test_stack(K, wide, length(5 * i + j), length(i + 7 * outer),
                                   length(3 * i + 5 * j + terms), terms, outer,
                                   1 + (i + j) % FC_MAX_STACK);
        }
        for (int i = 1; i <= 64; i++) { /* every remainder */
            const fc_activation phi = (fc_activation)(i % FC_N_ACTIVATIONS);
            const fc_loss loss = (fc_loss)(i % 3);
            const int labels = loss == FC_CROSS_ENTROPY && i % 2;
            test_product(K, wide, i, 65 - i, 1 + i % 7, i % 4, i % 2, i % 3 == 0);
            test_product(K, wide, 65 - i, i, 1 + i % 5, (i + 1) % 4, (i + 1) % 2, i % 3 == 1);
            test_activate(K, R, wide, 1 + i % 3, i, phi, i % 4);
            test_fold(K, R, wide, 1 + i % 3, i, i % 2 ? FC_TANH : FC_SIGMOID);
            test_loss(K, R, wide, 1 + i % 5, i, loss, labels);
            test_across(K, R, wide, i, 1 + i % 4, loss, labels, i % 5 == 0);
            test_sweeps(K, R, wide, 1 + i % 4, i), test_rows(K, R, wide, 1 + i % 6, 1 + i % 3, i);
            test_norm(K, R, wide, 1 + i % 3, i), test_narrow(K, R, wide, i, 65 - i, 1 + i % 4);
        }
        Matrix sink = matrix(1, 64, wide, 1, positive);
        snprintf(what, sizeof what, "%s f%d peak", K->name, wide ? 64 : 32);
        check(K->peak(10, sink.x) > 0, "flops", 0);
        drop(sink);
    }
    printf("%-9s %6d passed, %d failed\n", tables[0].name, passed - so_far, failed - before);
}

/* Return nonzero if the arguments of the program name the table, or no table. */
static int selected(int argc, char **argv, const fc_table *tables) {
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], tables[0].name)) return 1;
    return argc < 2;
}

int main(int argc, char **argv) {
#ifdef FC_GUARDED
    signal(SIGSEGV, touched), signal(SIGBUS, touched);
#endif
#ifdef FC_HAVE_X86
    __builtin_cpu_init();
    if (selected(argc, argv, fc_avx512) && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw"))
        test_table(fc_avx512, fc_reference);
    if (selected(argc, argv, fc_avx2) && __builtin_cpu_supports("avx2") &&
        __builtin_cpu_supports("fma"))
        test_table(fc_avx2, fc_reference);
#endif
#ifdef FC_HAVE_NEON
    if (selected(argc, argv, fc_neon)) test_table(fc_neon, fc_reference);
#endif
#ifdef FC_HAVE_VECTORS
    if (selected(argc, argv, fc_baseline)) test_table(fc_baseline, fc_reference);
#endif
    if (selected(argc, argv, fc_reference)) test_table(fc_reference, fc_reference);
    test_blas(fc_reference);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
