/* Threads: split a job into numbered parts, run the parts on idle threads, return when all are
 * done.
 *
 * Workers are created once, at the first job that needs them. After a job they spin for a short
 * while, since the next one usually follows within microseconds, and then sleep. Which thread
 * runs which part is not determined, so a job's result must not depend on it. Workers compute
 * with the floating-point settings of watch.h, which the caller must have loaded, too. One job
 * runs at a time: a caller that finds the team busy does its job alone. After a fork, the child
 * starts without workers and creates its own. */
#ifndef FC_TEAM_H
#define FC_TEAM_H
#include <stddef.h>

/* member: 0 for the caller, 1 and more for workers; less than the number of threads */
typedef void (*fc_part)(void *context, ptrdiff_t part, int member);

enum { FC_MAX_THREADS = 64 };

void fc_team_run(int threads, ptrdiff_t parts, fc_part part, void *context);
/* For a long part: nonzero if the caller has cancelled the job (see watch.h); the part should
 * then return. */
int fc_team_off(int member);
int fc_team_available(void);     /* CPUs that affinity and cgroup limits allow, at least 1 */
int fc_team_workers(void);       /* workers alive */
void fc_team_limit(int threads); /* maximum threads of every later job; 0: no limit */
int fc_team_get_limit(void);
#endif
