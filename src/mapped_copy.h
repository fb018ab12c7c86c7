/* Safe copies from memory-mapped files that another process may truncate. A load from a page beyond
 * the end of the file would kill the process (SIGBUS), whereas a copy by a system call returns an
 * error. */
#ifndef FC_MAPPED_COPY_H
#define FC_MAPPED_COPY_H
#include <stddef.h>

/* fc_copy_checked copies `count` runs of `run` bytes, from[0], from[1], ..., to consecutive places
 * in `out`, which must not overlap them. It returns 0 or an errno, which is EFAULT if a page no
 * longer exists. The copy goes through a pipe if `by_pipe` is nonzero or if the system call
 * process_vm_readv is missing or not permitted. `map` is NULL, or the address of a memory map of
 * `size` bytes that contains all runs and whose pages may be unloaded with MADV_DONTNEED. Then at
 * most two windows of 2 MiB, or the windows of a single run, are loaded at one time. */
int fc_copy_checked(char *out, const char *const *from, size_t count, size_t run, int by_pipe,
                    char *map, size_t size);

/* fc_read reads `bytes` bytes of an open file at position `at`. It returns 0 or an errno, which is
 * EFAULT if the file ends too early. */
int fc_read(int file, char *out, size_t bytes, long long at);

#endif
