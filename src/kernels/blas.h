#ifndef FC_BLAS_H
#define FC_BLAS_H
#include "kernels.h"
/* Fortran's sgemm and dgemm with 32-bit integers, as scipy.linalg.cython_blas declares them. */
typedef void (*fc_gemm_f32)(char *, char *, int *, int *, int *, float *, float *, int *, float *,
                            int *, float *, float *, int *);
typedef void (*fc_gemm_f64)(char *, char *, int *, int *, int *, double *, double *, int *,
                            double *, int *, double *, double *, int *);
/* Fill blas[2]: `under` with its product replaced by BLAS. */
void fc_blas_over(const fc_table *under, const fc_table *reference, fc_gemm_f32 sgemm,
                  fc_gemm_f64 dgemm, fc_table *blas);
#endif
