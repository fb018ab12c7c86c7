/* The reference: every slot as plain C loops with libm. Works with every compiler; the oracle for
 * all other tables. */
#include "kernels.h"
#include <math.h>
#include <string.h>

#define FC_ISA reference
#define FC_BYTES 0
#define FC_ONE_LANE 1
#include "table.inc"
