#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "lift.h"
#include <errno.h>
#include <string.h>

#ifdef _WIN32 /* where a file that is mapped cannot be cut */
int fc_lift(char *out, const char *const *from, size_t count, size_t run, int by_pipe) {
    (void)by_pipe;
    for (size_t i = 0; i < count; i++) memcpy(out + i * run, from[i], run);
    return 0;
}
#else
#include <fcntl.h>
#include <unistd.h>

enum { PIECE = 4096 }; /* bytes that an empty pipe takes at once */

/* Write to a pipe and read back: a page that is gone makes the write fail. */
static int pass(const int *ends, char *out, const char *from, size_t bytes) {
    ssize_t put, got;
    while (bytes) {
        put = write(ends[1], from, bytes < PIECE ? bytes : PIECE);
        if (put < 0 && errno != EINTR) return errno;
        for (; put > 0; put -= got, out += got, from += got, bytes -= (size_t)got) {
            got = read(ends[0], out, (size_t)put);
            if (got < 0 && errno != EINTR) return errno;
            if (got < 0) got = 0;
        }
    }
    return 0;
}

static int lift_by_pipe(char *out, const char *const *from, size_t count, size_t run) {
    int ends[2], failed = 0;
    if (pipe(ends)) return errno;
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    for (size_t i = 0; i < count && !failed; i++) failed = pass(ends, out + i * run, from[i], run);
    close(ends[0]);
    close(ends[1]);
    return failed;
}

#ifdef __linux__
#include <sys/uio.h>

enum { BATCH = 256 }; /* runs of one call */

static int lift_at_once(char *out, const char *const *from, size_t count, size_t run) {
    struct iovec there[BATCH];
    for (size_t i = 0; i < count;) {
        size_t n = 0;
        for (; n < BATCH && i < count; n++, i++) {
            there[n].iov_base = (char *)from[i];
            there[n].iov_len = run;
        }
        struct iovec here = {out, n * run};
        ssize_t got = process_vm_readv(getpid(), &here, 1, there, n, 0);
        if (got < 0) return errno;
        if ((size_t)got < n * run) return EFAULT; /* up to the page that is gone */
        out += n * run;
    }
    return 0;
}
#else
static int lift_at_once(char *out, const char *const *from, size_t count, size_t run) {
    (void)out, (void)from, (void)count, (void)run;
    return ENOSYS;
}
#endif

int fc_lift(char *out, const char *const *from, size_t count, size_t run, int by_pipe) {
    const int failed = by_pipe ? ENOSYS : lift_at_once(out, from, count, run);
    if (failed != ENOSYS && failed != EPERM && failed != EACCES) return failed;
    return lift_by_pipe(out, from, count, run);
}
#endif
