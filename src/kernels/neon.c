/* Kernels for AArch64: 32 registers of 128 bits, with fused multiply-add. */
#include "kernels.h"
#include <math.h>
#include <string.h>
#ifdef FC_HAVE_NEON
#define FC_ISA neon
#define FC_VECTOR_BYTES 16
#include "table.inc"
#endif
