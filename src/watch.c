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
static THREAD_LOCAL int wanted;

int fc_threads_wanted(void) { return wanted; }

int fc_set_threads_wanted(int threads) {
    const int before = wanted;
    wanted = threads;
    return before;
}

/* --- floating-point settings ------------------------------------------------------------------ */

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
enum { FLAGS = 0x3f, SSE_FIXED = 0x1f80, X87_FIXED = 0x37f };
#ifdef _MSC_VER /* long double equals double with this compiler */
#define STORE_X87(word) ((word) = X87_FIXED)
#define LOAD_X87(word) ((void)0)
#else
#define STORE_X87(word) __asm__ __volatile__("fnstcw %0" : "=m"(word))
#define LOAD_X87(word) __asm__ __volatile__("fldcw %0" : : "m"(word))
#endif

fc_arithmetic fc_arithmetic_begin(void) {
    static const unsigned short fixed = X87_FIXED;
    fc_arithmetic before = {.sse = _mm_getcsr()};
    STORE_X87(before.x87);
    if ((before.sse & ~(unsigned)FLAGS) != SSE_FIXED) _mm_setcsr(SSE_FIXED);
    if (before.x87 != fixed) LOAD_X87(fixed);
    return before;
}

/* Exception flags raised since fc_arithmetic_begin remain raised, as after any function, unless the
 * control bits have to be loaded again. */
void fc_arithmetic_end(fc_arithmetic before) {
    unsigned short x87;
    STORE_X87(x87);
    if ((_mm_getcsr() ^ before.sse) & ~(unsigned)FLAGS) _mm_setcsr(before.sse);
    if (x87 != before.x87) LOAD_X87(before.x87);
}
#elif defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
static void load(unsigned long long fpcr) { __asm__ __volatile__("msr fpcr, %0" : : "r"(fpcr)); }

static unsigned long long stored(void) {
    unsigned long long fpcr;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(fpcr));
    return fpcr;
}

fc_arithmetic fc_arithmetic_begin(void) {
    const fc_arithmetic before = {stored()};
    if (before.fpcr) load(0);
    return before;
}

void fc_arithmetic_end(fc_arithmetic before) {
    if (stored() != before.fpcr) load(before.fpcr);
}
#else
fc_arithmetic fc_arithmetic_begin(void) {
    fc_arithmetic before;
    fegetenv(&before);
    fesetenv(FE_DFL_ENV);
    return before;
}

void fc_arithmetic_end(fc_arithmetic before) { fesetenv(&before); }
#endif

/* --- checks for signals ----------------------------------------------------------------------- */

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

/* Return the time of the system's last clock tick, which was up to a few milliseconds ago. This is
 * accurate enough for the watch and takes a fifth of the time of fc_now_ns. */
static long long about_now_ns(void) {
#ifdef CLOCK_MONOTONIC_COARSE
    struct timespec t;
    if (!clock_gettime(CLOCK_MONOTONIC_COARSE, &t)) return t.tv_sec * 1000000000LL + t.tv_nsec;
#endif
    return fc_now_ns();
}

fc_watch fc_watch_begin(fc_check check) {
    const fc_watch before = watch;
    watch = (fc_watch){check, 0, 0, fc_arithmetic_begin()};
    return before;
}

int fc_watch_end(fc_watch before) {
    const int off = watch.cancelled;
    fc_arithmetic_end(watch.own);
    watch = before;
    return off;
}

int fc_watch_poll(void) {
    if (!watch.check || watch.cancelled) return watch.cancelled;
    const long long now = about_now_ns();
    if (!watch.due) watch.due = now + FC_CHECK_NS;
    if (now > watch.due) {
        fc_arithmetic_end(watch.own);
        const int off = watch.check();
        watch.own = fc_arithmetic_begin(); /* a signal handler may have changed the settings */
        /* The check may itself have begun and ended watches, and may have cancelled this one. */
        watch.cancelled |= off;
        watch.due = about_now_ns() + FC_CHECK_NS;
    }
    return watch.cancelled;
}

int fc_watch_cancelled(void) { return watch.cancelled; }
int fc_watch_has_check(void) { return watch.check != NULL; }
void fc_watch_cancel(void) { watch.cancelled = 1; }
