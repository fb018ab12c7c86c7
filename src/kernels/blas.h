#ifndef FC_BLAS_H
#define FC_BLAS_H
#include "kernels.h"
/* Types of the Fortran routines sgemm and dgemm with 32-bit integers, as in
 * scipy.linalg.cython_blas. */
typedef void (*fc_gemm_f32)(char *, char *, int *, int *, int *, float *, float *, int *, float *,
                            int *, float *, float *, int *);
typedef void (*fc_gemm_f64)(char *, char *, int *, int *, int *, double *, double *, int *,
                            double *, int *, double *, double *, int *);
/* Fill the table `blas` with the kernels of the table `under`, except for products, which BLAS
 * computes, or `reference` where BLAS cannot. */
void fc_blas_over(const fc_table *under, const fc_table *reference, fc_gemm_f32 sgemm,
                  fc_gemm_f64 dgemm, fc_table *blas);
#endif
