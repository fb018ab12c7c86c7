/* State of a computing thread: its floating-point settings, the number of threads that its calls
 * may use, and the watch, which checks for Ctrl-C. */
#ifndef FC_WATCH_H
#define FC_WATCH_H

/* All threads compute with the same floating-point settings: round to nearest, keep subnormal
 * numbers, trap no exception. Workers start with these settings. Callers load them while a watch is
 * active, whatever their own settings are (fesetround, torch.set_flush_denormal). Results thus do
 * not depend on earlier changes of a thread's settings, and the unit roundoff assumed in error
 * bounds is valid. An fc_arithmetic holds a thread's previous settings, which are restored at the
 * end. */
#if defined(__x86_64__) || defined(_M_X64)
typedef struct {
    unsigned sse;       /* MXCSR register */
    unsigned short x87; /* control word of the x87 unit, used by long double and fegetround() */
} fc_arithmetic;
#elif defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
typedef struct {
    unsigned long long fpcr;
} fc_arithmetic;
#else
#include <fenv.h>
typedef fenv_t fc_arithmetic;
#endif
/* fc_arithmetic_begin loads the common settings and returns the previous ones. It takes only
 * nanoseconds. */
fc_arithmetic fc_arithmetic_begin(void);
/* fc_arithmetic_end restores the settings `before`, whatever has been set since. */
void fc_arithmetic_end(fc_arithmetic before);

/* fc_threads_wanted returns the number of threads for calls of this thread that do not specify one;
 * 0: no preference. */
int fc_threads_wanted(void);
int fc_set_threads_wanted(int threads); /* returns the previous number */

/* A watch lets a thread cancel a long computation on Ctrl-C.
 *
 * A watch belongs to one thread, the caller's, because only that thread may run Python's signal
 * handlers. While a watch is active, the team queries it between parts, and long parts query it in
 * between; the watch calls `check` at most once per FC_CHECK_NS nanoseconds. After a cancellation,
 * every job of this thread returns at once, with incomplete output, until the watch ends. `check`
 * runs with the caller's own floating-point settings. */
typedef int (*fc_check)(void); /* a nonzero result cancels the computation */

typedef struct {
    fc_check check;    /* NULL: signals are not checked */
    int cancelled;     /* nonzero after a cancellation */
    long long due;     /* time of the next check in nanoseconds; 0 before the first query */
    fc_arithmetic own; /* previous settings of the caller */
} fc_watch;

/* Minimum nanoseconds between two checks. */
enum { FC_CHECK_NS = 60000000 };

fc_watch fc_watch_begin(fc_check check); /* returns the previous watch */
/* fc_watch_end restores the watch `before`. It returns nonzero if the ended watch was cancelled. */
int fc_watch_end(fc_watch before);
int fc_watch_poll(void);      /* nonzero after a cancellation; calls `check` if it is due */
int fc_watch_cancelled(void); /* nonzero after a cancellation; never calls `check` */
int fc_watch_has_check(void); /* nonzero if the active watch has a `check` */
void fc_watch_cancel(void);
long long fc_now_ns(void);
#endif
