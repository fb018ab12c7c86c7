/* A thread team that divides a job into numbered parts, runs them on several threads, and returns
 * when all parts are done.
 *
 * Workers are created once, by the first job that needs them. After a job they spin for a short
 * time, because the next job usually follows within microseconds, and then sleep. It is not
 * determined which thread runs which part, so the result of a job must not depend on it. Workers
 * compute with the floating-point settings of watch.h, which the caller must have loaded as well.
 * The team runs one job at a time: if the team is busy, fc_team_run runs all parts on the calling
 * thread. After a fork, the child process starts without workers and creates its own. */
#ifndef FC_TEAM_H
#define FC_TEAM_H
#include <stddef.h>

/* Function that runs one part. `member` is the number of the thread: 0 for the caller and 1, 2, ...
 * for workers; it is less than the job's number of threads. */
typedef void (*fc_part)(void *context, ptrdiff_t part, int member);

enum { FC_MAX_THREADS = 64 };

void fc_team_run(int threads, ptrdiff_t parts, fc_part part, void *context);
/* Called within a part, fc_team_cancelled returns nonzero if the caller has cancelled the job (see
 * watch.h). A long part should then return. */
int fc_team_cancelled(int member);
/* number of CPUs that affinity and cgroup limits allow, at least 1 */
int fc_team_available(void);
int fc_team_workers(void);       /* number of live workers */
void fc_team_limit(int threads); /* limits the threads of every later job; 0: no limit */
int fc_team_get_limit(void);
#endif
