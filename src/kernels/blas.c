/* Matrix products by BLAS; all other kernels come from another table. kernels.pyx passes SciPy's
 * sgemm and dgemm, so this file is not linked against a BLAS library. A "packed" B has one lane,
 * which makes it the transpose of B, and BLAS can read that directly. */
#include "kernels.h"
#include "blas.h"
#include <limits.h>
#include <string.h>

static fc_gemm_f32 gemm_f32;
static fc_gemm_f64 gemm_f64;

#define REAL float
#define NAME(x) x##_f32
#include "blas.inc"
#undef REAL
#undef NAME
#define REAL double
#define NAME(x) x##_f64
#include "blas.inc"
#undef REAL
#undef NAME

void fc_blas_over(const fc_table *under, const fc_table *reference, fc_gemm_f32 sgemm,
                  fc_gemm_f64 dgemm, fc_table *blas) {
    gemm_f32 = sgemm;
    gemm_f64 = dgemm;
    loops = reference;
    for (int d = 0; d < 2; d++) {
        blas[d] = under[d];
        blas[d].name = "blas";
        blas[d].vector_bytes = blas[d].real_bytes;
        blas[d].sums.slice = blas[d].sums.items_of = blas[d].sums.item_rows = 0;
        blas[d].sums.from_c = 1;
        blas[d].block = block_whole;
        blas[d].rounds = reference[d].rounds;
        blas[d].pack = reference[d].pack;
        blas[d].product = d ? product_f64 : product_f32;
        blas[d].stack = reference[d].stack;
        blas[d].scratch = blas[d].packed = 0;
        epilogues[d] = under[d].epilogue;
    }
}
