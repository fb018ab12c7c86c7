#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "block.h"
#include <stdlib.h>
#ifdef _WIN32
#include <malloc.h>
void *fc_block(size_t n) { return _aligned_malloc(n, 4096); }
void fc_block_free(void *p) { _aligned_free(p); }
#else
#include <sys/mman.h>
/* Large blocks use huge pages, because products read matrices along columns and each row of a wide
 * matrix begins on a different small page. */
void *fc_block(size_t n) {
    void *p = NULL;
    const size_t huge = (size_t)1 << 21;
    if (posix_memalign(&p, n >= huge ? huge : 4096, n ? n : 1)) return NULL;
#ifdef MADV_HUGEPAGE
    if (n >= huge) madvise(p, n, MADV_HUGEPAGE);
#endif
    return p;
}
void fc_block_free(void *p) { free(p); }
#endif
