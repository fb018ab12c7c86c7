/* Safe reads of memory that may no longer exist: pages of a mapped file that was cut short.
 * Loading from such a page ends the process (SIGBUS); if the kernel copies it, the copy returns
 * an error. */
#ifndef FC_MAPPED_COPY_H
#define FC_MAPPED_COPY_H
#include <stddef.h>

/* out[i * run : (i + 1) * run] = the `run` bytes at from[i], for i < count; out overlaps none of
 * them. Returns 0 or an errno: EFAULT if a page no longer exists. Copies through a pipe if
 * `by_pipe`, or if the system denies the call that copies directly. `map`, of `size` bytes, or
 * NULL: a map that contains all runs and whose pages may be dropped: at most two windows of 2
 * MiB of it stay mapped at a time, or those of one run. */
int fc_copy_checked(char *out, const char *const *from, size_t count, size_t run, int by_pipe,
                    char *map, size_t size);

/* Read `bytes` bytes of an open file from position `at` on. Returns 0 or an errno, EFAULT if the
 * file ends before. */
int fc_read(int file, char *out, size_t bytes, long long at);

#endif
