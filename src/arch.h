/* The kernel tables that this CPU can run, and the selection of one. */
#ifndef FC_ARCH_H
#define FC_ARCH_H
#include "kernels/kernels.h"
#include "kernels/blas.h"

/* Fill the list of tables that this CPU and operating system can run, best first; called once at
 * import. */
void fc_arch_init(fc_gemm_f32 sgemm, fc_gemm_f64 dgemm);
int fc_arch_count(void);
const fc_table *fc_arch_at(int i);              /* two rows: float32, float64 */
const fc_table *fc_arch_find(const char *name); /* NULL if unknown or not for this CPU */
#endif
