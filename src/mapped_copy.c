#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "mapped_copy.h"
#include <errno.h>
#include <string.h>

#ifdef _WIN32 /* on Windows a mapped file cannot be truncated */
int fc_copy_checked(char *out, const char *const *from, size_t count, size_t run, int by_pipe,
                    char *map, size_t size) {
    (void)by_pipe, (void)map, (void)size;
    for (size_t i = 0; i < count; i++) memcpy(out + i * run, from[i], run);
    return 0;
}

int fc_read(int file, char *out, size_t bytes, long long at) {
    (void)file, (void)out, (void)bytes, (void)at;
    return ENOSYS;
}
#else
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

int fc_read(int file, char *out, size_t bytes, long long at) {
    while (bytes) {
        const ssize_t got = pread(file, out, bytes, (off_t)at);
        if (!got) return EFAULT; /* the file ends before the last byte */
        if (got < 0 && errno != EINTR) return errno;
        if (got > 0) out += got, at += got, bytes -= (size_t)got;
    }
    return 0;
}

enum { PIPE_BYTES = 4096 }; /* bytes that an empty pipe always accepts */

/* Copy by writing to a pipe and reading from it. The write fails if a page no longer exists. */
static int copy_run_by_pipe(const int *ends, char *out, const char *from, size_t bytes) {
    ssize_t put, got;
    while (bytes) {
        put = write(ends[1], from, bytes < PIPE_BYTES ? bytes : PIPE_BYTES);
        if (put < 0 && errno != EINTR) return errno;
        for (; put > 0; put -= got, out += got, from += got, bytes -= (size_t)got) {
            got = read(ends[0], out, (size_t)put);
            if (got < 0 && errno != EINTR) return errno;
            if (got < 0) got = 0;
        }
    }
    return 0;
}

static int copy_by_pipe(char *out, const char *const *from, size_t count, size_t run) {
    int ends[2], failed = 0;
    if (pipe(ends)) return errno;
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    for (size_t i = 0; i < count && !failed; i++)
        failed = copy_run_by_pipe(ends, out + i * run, from[i], run);
    close(ends[0]);
    close(ends[1]);
    return failed;
}

#ifdef __linux__
#include <sys/uio.h>

enum { RUNS_PER_CALL = 256 }; /* maximum runs per system call */

static int copy_directly(char *out, const char *const *from, size_t count, size_t run) {
    struct iovec there[RUNS_PER_CALL];
    for (size_t i = 0; i < count;) {
        size_t n = 0;
        for (; n < RUNS_PER_CALL && i < count; n++, i++) {
            there[n].iov_base = (char *)from[i];
            there[n].iov_len = run;
        }
        struct iovec here = {out, n * run};
        ssize_t got = process_vm_readv(getpid(), &here, 1, there, n, 0);
        if (got < 0) return errno;
        /* The copy has ended at a page that no longer exists. */
        if ((size_t)got < n * run) return EFAULT;
        out += n * run;
    }
    return 0;
}
#else
static int copy_directly(char *out, const char *const *from, size_t count, size_t run) {
    (void)out, (void)from, (void)count, (void)run;
    return ENOSYS;
}
#endif

static int copy_runs(char *out, const char *const *from, size_t count, size_t run, int by_pipe) {
    const int failed = by_pipe ? ENOSYS : copy_directly(out, from, count, run);
    if (failed != ENOSYS && failed != EPERM && failed != EACCES) return failed;
    return copy_by_pipe(out, from, count, run);
}

/* A page fault may map all pages of its window of 2^WINDOW_LOG2 bytes. At most MAX_WINDOWS windows
 * are mapped at one time. */
enum { WINDOW_LOG2 = 21, MAX_WINDOWS = 2 };

/* Return the number of runs, at least one, that lie in the first MAX_WINDOWS windows. Set `low` and
 * `high` to the numbers of the lowest and highest of these windows. */
static size_t runs_in_windows(const char *const *from, size_t count, size_t run, uintptr_t *low,
                              uintptr_t *high) {
    uintptr_t windows = 0, before = 0;
    size_t i = 0;
    for (; i < count; i++) {
        const uintptr_t a = (uintptr_t)from[i] >> WINDOW_LOG2;
        const uintptr_t b = ((uintptr_t)from[i] + run - 1) >> WINDOW_LOG2;
        windows += b - a + !(i && a == before);
        if (i && windows > MAX_WINDOWS) break;
        before = b;
        if (!i || a < *low) *low = a;
        if (!i || b > *high) *high = b;
    }
    return i;
}

int fc_copy_checked(char *out, const char *const *from, size_t count, size_t run, int by_pipe,
                    char *map, size_t size) {
    int failed = 0;
    for (size_t i = 0, n = count; i < count && !failed; i += n) {
        uintptr_t low = 0, high = 0;
        if (map) n = runs_in_windows(from + i, count - i, run, &low, &high);
        failed = copy_runs(out + i * run, from + i, n, run, by_pipe);
        if (!map) continue;
        uintptr_t start = low << WINDOW_LOG2, end = (high + 1) << WINDOW_LOG2;
        if (start < (uintptr_t)map) start = (uintptr_t)map;
        if (end > (uintptr_t)map + size) end = (uintptr_t)map + size;
        madvise((void *)start, end - start, MADV_DONTNEED);
    }
    return failed;
}
#endif
