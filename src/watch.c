#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "watch.h"
#include <stddef.h>
#include <time.h>
#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#endif

#ifdef _MSC_VER
#define THREAD_LOCAL __declspec(thread)
#else
#define THREAD_LOCAL _Thread_local
#endif
static THREAD_LOCAL fc_watch watch;

long long fc_now_ns(void) {
#ifdef _WIN32
    LARGE_INTEGER now, second;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&second);
    return (long long)((double)now.QuadPart * 1e9 / (double)second.QuadPart);
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
#endif
}

/* The same as the system last wrote it down, some milliseconds ago: enough for a watch, and read
 * for a fifth of the price. */
static long long about_now_ns(void) {
#ifdef CLOCK_MONOTONIC_COARSE
    struct timespec t;
    if (!clock_gettime(CLOCK_MONOTONIC_COARSE, &t)) return t.tv_sec * 1000000000LL + t.tv_nsec;
#endif
    return fc_now_ns();
}

fc_watch fc_watch_begin(fc_check check) {
    const fc_watch before = watch;
    watch = (fc_watch){check, 0, check ? about_now_ns() + FC_CHECK_NS : 0};
    return before;
}

int fc_watch_end(fc_watch before) {
    const int off = watch.off;
    watch = before;
    return off;
}

int fc_watch_off(void) {
    if (watch.check && !watch.off && about_now_ns() > watch.due) {
        const int off = watch.check();
        /* the check itself may have had watches of its own, and have called this one off */
        watch.off |= off;
        watch.due = about_now_ns() + FC_CHECK_NS;
    }
    return watch.off;
}

int fc_watch_on(void) { return watch.check != NULL; }
void fc_watch_call_off(void) { watch.off = 1; }
