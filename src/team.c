#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "team.h"
#include "watch.h"

/* Run the parts on the calling thread until all are done or the job is cancelled. */
static void run_serially(ptrdiff_t parts, fc_part part, void *context) {
    for (ptrdiff_t i = 0; i < parts; i++) {
        if (i && fc_watch_poll()) return;
        part(context, i, 0);
    }
}

/* Single-threaded fallback for compilers without the necessary extensions. */
#if !(defined(__GNUC__) || defined(__clang__))
static int limit;
void fc_team_run(int threads, ptrdiff_t parts, fc_part part, void *context) {
    (void)threads;
    if (fc_watch_poll()) return;
    run_serially(parts, part, context);
}
int fc_team_cancelled(int member) { return member == 0 && fc_watch_poll(); }
int fc_team_available(void) { return 1; }
int fc_team_workers(void) { return 0; }
void fc_team_limit(int threads) { limit = threads; }
int fc_team_get_limit(void) { return limit; }

#else
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "threads.h"

#if defined(__x86_64__)
#define pause_spinning() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define pause_spinning() __asm__ __volatile__("yield")
#else
#define pause_spinning() ((void)0)
#endif

/* A worker or a waiting caller spins for SPIN_NS nanoseconds before it sleeps. Because waking a
 * thread takes about 50 us, a worker whose last sleep was short stays awake for LINGER_NS
 * nanoseconds, during which it yields to other threads. */
enum { SPIN_NS = 50000, LINGER_NS = 400000 };

/* Fetching a 64-byte cache line that another thread has written takes a tenth of a microsecond or
 * more. Fields that are written or read together therefore share a cache line. */
enum { CACHE_LINE_BYTES = 64 };
typedef uint64_t count_t;
#define INSIDE_INCREMENT ((count_t)1) /* increment of `inside` for a worker that is inside a job */
/* Increment for a worker that joins a job. The bits above the lowest 16 thus count joins. */
#define JOINED_INCREMENT ((count_t)1 << 16)
#define COUNT_INSIDE(count) ((count) & (JOINED_INCREMENT - 1))

/* Workers wait for a change of the word `job`. It consists of the job's number, which is odd while
 * the job is open, and the job's number of threads. Workers whose own number is not less than the
 * number of threads stay asleep. */
#define PACK_JOB(number, threads) ((number) << 8 | (count_t)(threads))
#define JOB_NUMBER(job) ((job) >> 8)
#define JOB_THREADS(job) ((int)((job) & 255))

/* Workers sleep in the groups {1}, {2, 3}, {4, ..., 7}, ..., each with a condition variable of its
 * own. A job thus wakes its workers by few calls, and wakes few workers that it does not need. */
enum { N_SLEEP_GROUPS = 6 };
_Static_assert(FC_MAX_THREADS <= 1 << N_SLEEP_GROUPS, "too few groups");
#define REPEAT_PER_GROUP(x) [0 ... N_SLEEP_GROUPS - 1] = x
static int group_of(int member) { return 31 - __builtin_clz((unsigned)member); }

/* The shared state of the team. Comments name the thread or lock that protects a field. */
static struct {
    /* Last job: its number and its number of threads, packed by PACK_JOB. The other fields on this
     * cache line describe the job, and are written before the job is opened. */
    _Alignas(CACHE_LINE_BYTES) _Atomic count_t job;
    ptrdiff_t parts;
    fc_part part;
    void *context;
    /* Two counters in one word: the lowest 16 bits count the workers that are inside a job, and the
     * other bits count all joins so far. */
    _Alignas(CACHE_LINE_BYTES) _Atomic count_t inside;
    /* The fields on this cache line are rarely written. */
    _Alignas(CACHE_LINE_BYTES)
        atomic_int cancelled; /* nonzero if the caller has cancelled the job */
    atomic_int sleepers[N_SLEEP_GROUPS];
    atomic_int caller_sleeps;
    atomic_int limit;
    int workers; /* live workers, numbered 1 to `workers`; protected by `busy` */
    count_t job_at_creation[FC_MAX_THREADS]; /* per worker: value of `job` when it was created */
    /* Lock that the caller of the current job holds; also held across fork. */
    _Alignas(CACHE_LINE_BYTES) pthread_mutex_t busy;
    /* Number of times that a worker has joined a job, counted when the last job ended; protected by
     * `busy`. */
    count_t joined;
    pthread_mutex_t sleep; /* lock of the condition variables */
    pthread_cond_t wake[N_SLEEP_GROUPS], done;
    /* Each member's share of the parts: the next part, and the end of the share. */
    struct {
        _Alignas(CACHE_LINE_BYTES) _Atomic ptrdiff_t next;
        ptrdiff_t end;
    } share[FC_MAX_THREADS];
} team = {.busy = PTHREAD_MUTEX_INITIALIZER,
          .sleep = PTHREAD_MUTEX_INITIALIZER,
          .wake = {REPEAT_PER_GROUP(PTHREAD_COND_INITIALIZER)},
          .done = PTHREAD_COND_INITIALIZER};

/* Nonzero if this thread is the caller of the current job and therefore holds `busy`. */
static _Thread_local int holds_team;

int fc_team_cancelled(int member) {
    return member ? atomic_load_explicit(&team.cancelled, memory_order_relaxed) : fc_watch_poll();
}

/* Run parts until none is left. A member begins with its own share, because the same rows were
 * probably in this thread's caches during the last job. It then takes parts from the shares of
 * other members; a worker omits this if each share has at most one part. Exhausted shares are only
 * read, because a write would move their cache lines between cores. */
static void work(int member, int threads) {
    const int shares = member && team.parts <= threads ? 1 : threads;
    for (int k = 0; k < shares; k++) {
        const int whose = (member + k) % threads;
        _Atomic ptrdiff_t *next = &team.share[whose].next;
        const ptrdiff_t end = team.share[whose].end;
        for (ptrdiff_t i; atomic_load_explicit(next, memory_order_relaxed) < end &&
                          (i = atomic_fetch_add(next, 1)) < end;) {
            team.part(team.context, i, member);
            if (!fc_team_cancelled(member)) continue;
            atomic_store(&team.cancelled, 1);
            return;
        }
    }
}

/* Return the nanoseconds since the first call with this variable `since`, which must be 0
 * initially. */
static long long elapsed_since(long long *since) {
    const long long now = fc_now_ns();
    if (!*since) *since = now;
    return now - *since;
}

/* Return the current job if it is open, includes this member and is not the job `seen`; otherwise
 * return 0. */
static count_t open_job_for(count_t seen, int member) {
    const count_t job = atomic_load(&team.job);
    return JOB_NUMBER(job) % 2 && job != seen && member < JOB_THREADS(job) ? job : 0;
}

/* Sleep until a job includes this member. The job may have ended by the time the member is
 * awake. */
static void sleep_until_included(count_t seen, int member) {
    const int group = group_of(member);
    pthread_mutex_lock(&team.sleep);
    atomic_fetch_add(&team.sleepers[group], 1);
    while (!open_job_for(seen, member)) {
        pthread_cond_wait(&team.wake[group], &team.sleep);
        if (member < JOB_THREADS(atomic_load(&team.job))) break;
    }
    atomic_fetch_sub(&team.sleepers[group], 1);
    pthread_mutex_unlock(&team.sleep);
}

/* Wake the sleeping workers that a job of `threads` threads includes. The job is already open. */
static void wake_sleepers(int threads) {
    const int groups = group_of(threads - 1) + 1;
    int asleep = 0;
    for (int g = 0; g < groups; g++) asleep |= atomic_load(&team.sleepers[g]) > 0;
    if (!asleep) return;
    pthread_mutex_lock(&team.sleep);
    for (int g = 0; g < groups; g++)
        if (atomic_load(&team.sleepers[g])) pthread_cond_broadcast(&team.wake[g]);
    pthread_mutex_unlock(&team.sleep);
}

/* Wait for a job that is not the job `seen` and includes this member, and return it. The worker
 * spins for SPIN_NS, then yields its CPU until LINGER_NS have passed if its last sleep was short,
 * then sleeps. If it was woken too late for a job, it waits again. `linger` is nonzero if the last
 * sleep was short, and is set after each sleep. */
static count_t wait_for_job(count_t seen, int member, int *linger) {
    long long since = 0, waited;
    count_t job;
    for (unsigned n = 0; !(job = open_job_for(seen, member)); n++) {
        pause_spinning();
        if (n % 64 < 63 || (waited = elapsed_since(&since)) <= SPIN_NS) continue;
        if (*linger && waited <= LINGER_NS) {
            sched_yield();
            continue;
        }
        sleep_until_included(seen, member);
        *linger = elapsed_since(&since) <= LINGER_NS;
        since = 0;
    }
    return job;
}

/* Main function of worker number k, which is member k of every job with more than k threads. The
 * worker increments `inside` before it reads `job` again. A caller that has closed the job and sees
 * no worker inside can therefore be sure that none will enter. Workers that come too late, or are
 * not part of the job, are not counted as joined. */
#ifdef _WIN32
static DWORD WINAPI worker(void *start) {
#else
static void *worker(void *start) {
#endif
    const int number = (int)(size_t)start;
    count_t seen = team.job_at_creation[number];
    int linger = 0;
    fc_arithmetic_begin(); /* a new thread inherits the settings of its creator */
    for (;;) {
        seen = wait_for_job(seen, number, &linger);
        __builtin_prefetch(&team.share[number], 1);
        count_t leave = INSIDE_INCREMENT;
        atomic_fetch_add(&team.inside, INSIDE_INCREMENT + JOINED_INCREMENT);
        if (atomic_load(&team.job) == seen) work(number, JOB_THREADS(seen));
        else leave += JOINED_INCREMENT;
        if (COUNT_INSIDE(atomic_fetch_sub(&team.inside, leave)) == 1 &&
            atomic_load(&team.caller_sleeps)) {
            pthread_mutex_lock(&team.sleep);
            pthread_cond_signal(&team.done);
            pthread_mutex_unlock(&team.sleep);
        }
    }
    return 0;
}

/* Sleep until the last worker has left the job, but no longer than FC_CHECK_NS. */
static void sleep_until_next_check(void) {
#ifdef _WIN32
    SleepConditionVariableSRW(&team.done, &team.sleep, FC_CHECK_NS / 1000000, 0);
#else
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += FC_CHECK_NS;
    if (until.tv_nsec >= 1000000000L) until.tv_sec++, until.tv_nsec -= 1000000000L;
    pthread_cond_timedwait(&team.done, &team.sleep, &until);
#endif
}

/* Wait until the last worker has left the job; called by the job's caller. Return how many times
 * workers have ever joined a job. */
static count_t wait_for_workers(void) {
    long long since = 0;
    count_t inside;
    for (unsigned n = 0; COUNT_INSIDE(inside = atomic_load(&team.inside)); n++) {
        pause_spinning();
        if (n % 64 == 63 && elapsed_since(&since) > SPIN_NS) {
            pthread_mutex_lock(&team.sleep);
            atomic_store(&team.caller_sleeps, 1);
            while (COUNT_INSIDE(inside = atomic_load(&team.inside))) {
                if (!fc_watch_has_check()) {
                    pthread_cond_wait(&team.done, &team.sleep);
                    continue;
                }
                sleep_until_next_check();
                pthread_mutex_unlock(&team.sleep);
                if (fc_watch_poll()) atomic_store(&team.cancelled, 1);
                pthread_mutex_lock(&team.sleep);
            }
            atomic_store(&team.caller_sleeps, 0);
            pthread_mutex_unlock(&team.sleep);
            break;
        }
    }
    return inside / JOINED_INCREMENT;
}

/* --- fork ------------------------------------------------------------------------------------- */

/* The child process has no workers, and its locks must be free. A signal handler may fork during
 * this thread's own job; the child then cancels the job, because the workers' results are lost. */
#ifndef _WIN32
static void before_fork(void) {
    if (!holds_team) pthread_mutex_lock(&team.busy);
    pthread_mutex_lock(&team.sleep);
}
static void after_fork_parent(void) {
    pthread_mutex_unlock(&team.sleep);
    if (!holds_team) pthread_mutex_unlock(&team.busy);
}
static void after_fork_child(void) {
    pthread_mutex_init(&team.busy, NULL);
    pthread_mutex_init(&team.sleep, NULL);
    for (int g = 0; g < N_SLEEP_GROUPS; g++) {
        pthread_cond_init(&team.wake[g], NULL);
        atomic_store(&team.sleepers[g], 0);
    }
    pthread_cond_init(&team.done, NULL);
    team.workers = 0;
    atomic_store(&team.inside, 0);
    team.joined = 0;
    atomic_store(&team.caller_sleeps, 0);
    if (!holds_team) return;
    pthread_mutex_lock(&team.busy);
    fc_watch_cancel();
}
static pthread_once_t once = PTHREAD_ONCE_INIT;
static void at_first_use(void) { pthread_atfork(before_fork, after_fork_parent, after_fork_child); }

/* Create workers until there are `wanted`, or fewer if the system refuses. Workers block all
 * signals, which are thus delivered to other threads. */
static void create_workers(int wanted) {
    pthread_once(&once, at_first_use);
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (team.workers < wanted) {
        pthread_t id;
        team.job_at_creation[team.workers + 1] = atomic_load(&team.job);
        if (pthread_create(&id, NULL, worker, (void *)(size_t)(team.workers + 1))) break;
        pthread_detach(id);
        team.workers++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}
#else
/* On Windows, processes do not fork and threads do not receive signals. */
static void create_workers(int wanted) {
    while (team.workers < wanted) {
        team.job_at_creation[team.workers + 1] = atomic_load(&team.job);
        HANDLE id = CreateThread(NULL, 0, worker, (void *)(size_t)(team.workers + 1), 0, NULL);
        if (!id) break;
        CloseHandle(id);
        team.workers++;
    }
}
#endif

void fc_team_run(int threads, ptrdiff_t parts, fc_part part, void *context) {
    if (fc_watch_poll()) return;
    const int cap = atomic_load(&team.limit);
    if (cap && threads > cap) threads = cap;
    if (threads > FC_MAX_THREADS) threads = FC_MAX_THREADS;
    if (threads > parts) threads = (int)parts;
    if (threads <= 1 || pthread_mutex_trylock(&team.busy)) {
        run_serially(parts, part, context);
        return;
    }
    holds_team = 1;
    if (team.workers < threads - 1) create_workers(threads - 1);
    const count_t last = JOB_NUMBER(atomic_load(&team.job)), number = last + 2 - (last + 1) % 2;
    team.parts = parts;
    team.part = part;
    team.context = context;
    for (int k = 0; k < threads; k++) {
        atomic_store_explicit(&team.share[k].next, parts * k / threads, memory_order_relaxed);
        team.share[k].end = parts * (k + 1) / threads;
    }
    if (atomic_load(&team.cancelled)) atomic_store(&team.cancelled, 0);
    atomic_store(&team.job, PACK_JOB(number, threads));
    wake_sleepers(threads);
    work(0, threads);
    count_t joined = wait_for_workers();
    /* If all workers of the job have joined and left, none can still enter, so the job need not be
     * closed. */
    if (joined != team.joined + (count_t)threads - 1) {
        atomic_store(&team.job, PACK_JOB(number + 1, threads));
        joined = wait_for_workers();
    }
    team.joined = joined;
    holds_team = 0;
    pthread_mutex_unlock(&team.busy);
}

/* --- number of CPUs --------------------------------------------------------------------------- */

/* Read up to n numbers from the first line of a file. Return nonzero if the file exists. fscanf is
 * not used, because recent headers rename it to a symbol that glibc provides only since version
 * 2.38. */
static int read_numbers(const char *path, double *numbers, int n) {
    char line[128] = "", *at = line, *end;
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    if (!fgets(line, sizeof line, f)) line[0] = 0;
    fclose(f);
    for (int i = 0; i < n; i++, at = end) {
        double x = strtod(at, &end);
        if (end == at) break;
        numbers[i] = x;
    }
    return 1;
}

/* Return the CPU quota of the cgroup, rounded up to whole CPUs, or 0 if there is none. Version 2
 * has the file `cpu.max`, in which "max" means no limit; version 1 has two files. */
static int cgroup_cpus(void) {
    double cpu_max[2] = {-1, 100000}; /* quota and period in microseconds */
    if (!read_numbers("/sys/fs/cgroup/cpu.max", cpu_max, 2) &&
        read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", cpu_max, 1))
        read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_period_us", cpu_max + 1, 1);
    return cpu_max[0] > 0 && cpu_max[1] > 0 ? (int)(cpu_max[0] / cpu_max[1] + 0.999) : 0;
}

int fc_team_available(void) {
    int n = 0;
#ifdef __linux__
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set)) n = CPU_COUNT(&set);
#endif
#ifdef _WIN32
    DWORD_PTR mine, all;
    if (GetProcessAffinityMask(GetCurrentProcess(), &mine, &all)) n = __builtin_popcountll(mine);
#else
    if (n <= 0) n = (int)sysconf(_SC_NPROCESSORS_ONLN);
#endif
    const int quota = cgroup_cpus();
    if (quota && quota < n) n = quota;
    return n < 1 ? 1 : n > FC_MAX_THREADS ? FC_MAX_THREADS : n;
}

int fc_team_workers(void) { return team.workers; }
void fc_team_limit(int threads) { atomic_store(&team.limit, threads > 0 ? threads : 0); }
int fc_team_get_limit(void) { return atomic_load(&team.limit); }
#endif
