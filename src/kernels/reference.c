/* The reference kernels: plain C loops with libm for every slot of the table. They work with every
 * compiler and serve as the oracle for all other tables. */
#include "kernels.h"
#include <math.h>
#include <string.h>

#define FC_ISA reference
#define FC_VECTOR_BYTES 0
#define FC_ONE_LANE 1
#include "table.inc"
