/* State of a computing thread: its floating-point settings, the number of threads it may use,
 * and the watch for Ctrl-C. */
#ifndef FC_WATCH_H
#define FC_WATCH_H

/* All threads compute with the same settings: round to nearest, keep subnormal numbers, trap no
 * exception. Workers start with them; callers load them while a watch is active, whatever their
 * own settings are (fesetround, torch.set_flush_denormal). Results then do not depend on a
 * thread's history, and the unit roundoff that the proofs use is valid. A saved state holds the
 * thread's previous settings, which are restored at the end. */
#if defined(__x86_64__) || defined(_M_X64)
typedef struct {
    unsigned sse;       /* settings of long double, which fegetround() reports */
    unsigned short x87; /* long double, and what fegetround() looks at */
} fc_arithmetic;
#elif defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
typedef struct {
    unsigned long long fpcr;
} fc_arithmetic;
#else
#include <fenv.h>
typedef fenv_t fc_arithmetic;
#endif
/* takes nanoseconds, a few more if the settings differ */
fc_arithmetic fc_arithmetic_begin(void);
/* restores `before`, whatever has been set in between */
void fc_arithmetic_end(fc_arithmetic before);
/* nonzero if the current settings are the common ones */
int fc_arithmetic_is_fixed(void);

/* Number of threads that calls of this thread use if none is given; 0: no preference. */
int fc_threads_wanted(void);
int fc_want_threads(int threads); /* returns the previous number */

/* Ctrl-C: the thread that waits for a long computation looks for signals from time to time and
 * may cancel the computation.
 *
 * A watch belongs to one thread, the caller's, which alone may run Python's signal handlers.
 * While a watch is active, the team queries it between parts, and long parts query it inside; it
 * calls `check` at most once per FC_CHECK_NS. Once cancelled, every job of this thread returns
 * at once, with its output incomplete, until the watch ends. The check runs with the caller's
 * own floating-point settings. */
typedef int (*fc_check)(void); /* nonzero: cancel */

typedef struct {
    fc_check check;    /* NULL: never checked */
    int off;           /* cancelled */
    long long due;     /* time of the next check in nanoseconds; 0: none has been made yet */
    fc_arithmetic own; /* the caller's settings */
} fc_watch;

/* nanoseconds between two checks */
enum { FC_CHECK_NS = 60000000 };

fc_watch fc_watch_begin(fc_check check); /* returns the previous watch, which ... */
/* ... fc_watch_end restores; returns nonzero if this watch was cancelled */
int fc_watch_end(fc_watch before);
int fc_watch_off(void);     /* nonzero if cancelled; calls `check` if that is due */
int fc_watch_was_off(void); /* nonzero if cancelled; never calls `check` */
int fc_watch_on(void);      /* nonzero if the active watch has a check */
void fc_watch_call_off(void);
long long fc_now_ns(void);
#endif
