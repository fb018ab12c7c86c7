/* What holds for a thread while it computes: its arithmetic, how many threads it may wake, and the
 * watch for Ctrl-C. */
#ifndef FC_WATCH_H
#define FC_WATCH_H

/* Arithmetic is one for all: to nearest, subnormal numbers as they are, no exception trapped.
 * Workers begin so, callers while a watch is on, whatever their own is (fesetround,
 * torch.set_flush_denormal): bits depend on no thread's past, and the proofs' units of rounding
 * hold. A state is what the thread had before, and what it has again after the end. */
#if defined(__x86_64__) || defined(_M_X64)
typedef struct {
    unsigned sse;
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
fc_arithmetic fc_arithmetic_begin(void);      /* nanoseconds; a few more where it differs */
void fc_arithmetic_end(fc_arithmetic before); /* whatever has been set in between */
int fc_arithmetic_is_fixed(void);             /* is it the one that all compute in? */

/* How many threads this one asks for where nobody says how many; 0: as many as there are. */
int fc_threads_wanted(void);
int fc_want_threads(int threads); /* returns what was wanted before */

/* Ctrl-C: whoever waits for a long computation looks up now and then and may call it off.
 *
 * A watch belongs to a thread: the caller's, which alone may run Python's signal handlers. While
 * one is on, the team asks it between parts (and whoever runs a long part, inside it) whether to go
 * on; it asks `check` every CHECK_NS at most. Once called off, every job of this thread returns at
 * once, with nothing right in what it was to fill, until the watch ends. The check runs
 * in the caller's own arithmetic. */
typedef int (*fc_check)(void); /* not 0: call it off */

typedef struct {
    fc_check check;    /* NULL: nobody asks */
    int off;           /* called off */
    long long due;     /* when to ask again, in nanoseconds; 0: nobody has looked up yet */
    fc_arithmetic own; /* the caller's */
} fc_watch;

enum { FC_CHECK_NS = 60000000 };

fc_watch fc_watch_begin(fc_check check); /* returns what was on before, for */
int fc_watch_end(fc_watch before);       /* which returns whether this one was called off */
int fc_watch_off(void);                  /* is it called off? Asks if it is time to */
int fc_watch_was_off(void);              /* the same, but asks nobody */
int fc_watch_on(void);                   /* does anybody ask? */
void fc_watch_call_off(void);
long long fc_now_ns(void);
#endif
