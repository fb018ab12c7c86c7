#include "arch.h"
#include <string.h>

static fc_table blas[2];
static const fc_table *tables[8];
static int count;

#ifdef FC_HAVE_X86
/* __builtin_cpu_supports also checks, through xgetbv, that the operating system saves the
 * registers. */
static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
}
static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif

void fc_arch_init(fc_gemm_f32 sgemm, fc_gemm_f64 dgemm) {
    if (count) return;
#ifdef FC_HAVE_X86
    __builtin_cpu_init();
    if (has_avx512()) tables[count++] = fc_avx512;
    if (has_avx2()) tables[count++] = fc_avx2;
#endif
#ifdef FC_HAVE_NEON
    tables[count++] = fc_neon;
#endif
    int place = count;
#if defined(__APPLE__)
    place = 0; /* Accelerate uses matrix units that these kernels cannot use, so BLAS comes first */
#endif
#ifdef FC_HAVE_VECTORS
    tables[count++] = fc_baseline;
#endif
    tables[count++] = fc_reference;
    fc_blas_over(tables[0], fc_reference, sgemm, dgemm, blas);
    memmove(tables + place + 1, tables + place, (size_t)(count - place) * sizeof tables[0]);
    tables[place] = blas;
    count++;
}

int fc_arch_count(void) { return count; }
const fc_table *fc_arch_at(int i) { return i >= 0 && i < count ? tables[i] : NULL; }
const fc_table *fc_arch_find(const char *name) {
    for (int i = 0; i < count; i++)
        if (!strcmp(tables[i]->name, name)) return tables[i];
    return NULL;
}
