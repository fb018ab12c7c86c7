/* Preloaded: the k-th allocation of at least `least` bytes since fc_arm fails, and large blocks
 * that live are counted. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

enum { LARGE = 4096 };
static atomic_long seen, wanted, least, live;

void fc_arm(long k, long size) { least = size, seen = 0, wanted = k; }
long fc_disarm(void) {
    wanted = 0;
    return seen;
}
long fc_live(void) { return live; }

static int fails(size_t n) {
    if (!wanted || (long)n < least) return 0;
    if (++seen != wanted) return 0;
    errno = ENOMEM;
    return 1;
}
static void *counted(void *p) {
    const size_t n = p ? malloc_usable_size(p) : 0;
    if (n >= LARGE) live += (long)n;
    return p;
}
static void uncounted(void *p) {
    const size_t n = p ? malloc_usable_size(p) : 0;
    if (n >= LARGE) live -= (long)n;
}

void *malloc(size_t n) { return fails(n) ? NULL : counted(__libc_malloc(n)); }
void *calloc(size_t n, size_t size) {
    return fails(n * size) ? NULL : counted(__libc_calloc(n, size));
}
void *realloc(void *p, size_t n) {
    if (n && fails(n)) return NULL;
    uncounted(p);
    return counted(__libc_realloc(p, n));
}
void *memalign(size_t to, size_t n) { return fails(n) ? NULL : counted(__libc_memalign(to, n)); }
void *aligned_alloc(size_t to, size_t n) { return memalign(to, n); }
int posix_memalign(void **p, size_t to, size_t n) {
    void *found = memalign(to, n);
    if (!found && n) return ENOMEM;
    *p = found;
    return 0;
}
void free(void *p) {
    uncounted(p);
    __libc_free(p);
}
