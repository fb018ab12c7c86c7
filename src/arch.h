/* The kernel tables that this CPU can run, and the selection of one of them. */
#ifndef FC_ARCH_H
#define FC_ARCH_H
#include "kernels/kernels.h"
#include "kernels/blas.h"

/* fc_arch_init lists the kernel tables that this CPU and operating system can run, best first. It
 * is called once, when the module is imported. */
void fc_arch_init(fc_gemm_f32 sgemm, fc_gemm_f64 dgemm);
int fc_arch_count(void);
const fc_table *fc_arch_at(int i); /* [0] for float32, [1] for float64 */
/* Return the tables called `name`, [0] for float32 and [1] for float64, or NULL if the name is
 * unknown or this CPU cannot run the tables. */
const fc_table *fc_arch_find(const char *name);
#endif
