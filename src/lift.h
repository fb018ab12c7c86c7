/* Reading memory that may be gone: the pages of a mapped file that was cut short. To load from such
 * a page ends the process (SIGBUS); the kernel, asked to copy it, says so. */
#ifndef FC_LIFT_H
#define FC_LIFT_H
#include <stddef.h>

/* out[i * run : (i + 1) * run] = the `run` bytes at from[i], for i < count; out overlaps none.
 * 0, or an errno: EFAULT where a page is gone. By a pipe where that is asked for, or the system
 * refuses the call that copies at once. `map`, of `size` bytes, or NULL: a map that all of them lie
 * in and whose pages may go: of these at most two windows of 2 MiB stay at a
 * time, or those of one run. */
int fc_lift(char *out, const char *const *from, size_t count, size_t run, int by_pipe, char *map,
            size_t size);

/* Bytes of an open file from a place on: 0 or an errno, EFAULT where it ends before. */
int fc_read(int file, char *out, size_t bytes, long long at);

#endif
