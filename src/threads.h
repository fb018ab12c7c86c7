/* The thread functions that the team uses, under their POSIX names: POSIX itself, or equivalents
 * for Windows. */
#ifndef FC_THREADS_H
#define FC_THREADS_H
#ifndef _WIN32
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

/* Wheels need the old symbol versions of functions that glibc 2.32 and 2.34 moved from libpthread
 * to libc. Later versions of glibc still provide the old symbols; without this, a wheel would
 * require a glibc at least as new as the one it was built with. */
#if defined(FC_OLD_GLIBC) && defined(__GLIBC__)
#if defined(__x86_64__)
#define FC_OLDEST_GLIBC_VERSION "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define FC_OLDEST_GLIBC_VERSION "GLIBC_2.17"
#endif
#endif
#ifdef FC_OLDEST_GLIBC_VERSION
#define FC_USE_OLDEST_SYMBOL(name) __asm__(".symver " #name ", " #name "@" FC_OLDEST_GLIBC_VERSION);
FC_USE_OLDEST_SYMBOL(pthread_create)
FC_USE_OLDEST_SYMBOL(pthread_detach)
FC_USE_OLDEST_SYMBOL(pthread_mutex_trylock)
FC_USE_OLDEST_SYMBOL(pthread_once)
FC_USE_OLDEST_SYMBOL(pthread_sigmask)
#endif

#else
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

typedef SRWLOCK fc_mutex;
typedef CONDITION_VARIABLE fc_cond;
typedef INIT_ONCE fc_once;
#define pthread_mutex_t fc_mutex
#define pthread_cond_t fc_cond
#define pthread_once_t fc_once
#define PTHREAD_MUTEX_INITIALIZER SRWLOCK_INIT
#define PTHREAD_COND_INITIALIZER CONDITION_VARIABLE_INIT
#define PTHREAD_ONCE_INIT INIT_ONCE_STATIC_INIT
#define pthread_mutex_init(lock, how) InitializeSRWLock(lock)
#define pthread_mutex_lock(lock) AcquireSRWLockExclusive(lock)
#define pthread_mutex_unlock(lock) ReleaseSRWLockExclusive(lock)
#define pthread_mutex_trylock(lock) (!TryAcquireSRWLockExclusive(lock))
#define pthread_cond_init(cond, how) InitializeConditionVariable(cond)
#define pthread_cond_signal(cond) WakeConditionVariable(cond)
#define pthread_cond_broadcast(cond) WakeAllConditionVariable(cond)
#define pthread_cond_wait(cond, lock) SleepConditionVariableSRW(cond, lock, INFINITE, 0)
#define sched_yield() SwitchToThread()
#endif
#endif
