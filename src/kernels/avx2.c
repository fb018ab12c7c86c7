/* Kernels for AVX2 and FMA: 16 registers of 256 bits. */
#include "kernels.h"
#include <math.h>
#include <string.h>
#ifdef FC_HAVE_X86
#include <immintrin.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define FC_ISA avx2
#define FC_VECTOR_BYTES 32
#include "table.inc"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
