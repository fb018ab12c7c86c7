/* Kernels for every CPU of the target architecture (SSE2 on x86-64): vectors of 128 bits, without
 * the assumption of a fused multiply-add. */
#include "kernels.h"
#ifdef FC_HAVE_X86
#include <immintrin.h>
#endif
#include <math.h>
#include <string.h>
#ifdef FC_HAVE_VECTORS
#define FC_ISA baseline
#define FC_VECTOR_BYTES 16
#include "table.inc"
#endif
