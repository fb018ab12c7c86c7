/* Kernels for AVX-512 F, DQ, VL and BW: 32 registers of 512 bits. */
#include "kernels.h"
#include <math.h>
#include <string.h>
#ifdef FC_HAVE_X86
#include <immintrin.h>
#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,prefer-vector-width=512")
#endif
#define FC_ISA avx512
#define FC_VECTOR_BYTES 64
#include "table.inc"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
