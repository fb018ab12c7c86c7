/* Threads: split a job into numbered parts, run the parts on whoever is free, return when all are
 * done.
 *
 * Workers are made once, at the first job that wants them. They spin for a short while after a job,
 * since the next one usually follows within microseconds, and then sleep. Which thread runs which
 * part is left to chance; a job's result must not depend on it: workers compute in the one
 * arithmetic of watch.h, the caller has to be in it. One job runs at a time: a caller
 * that finds the team busy does its job alone. After a fork the child starts with no workers and
 * makes its own. */
#ifndef FC_TEAM_H
#define FC_TEAM_H
#include <stddef.h>

/* member: 0 the caller, 1.. the workers; < threads */
typedef void (*fc_part)(void *context, ptrdiff_t part, int member);

enum { FC_MAX_THREADS = 64 };

void fc_team_run(int threads, ptrdiff_t parts, fc_part part, void *context);
/* for a long part: has the caller called the job off (see watch.h)? Then return */
int fc_team_off(int member);
int fc_team_available(void);     /* what affinity and cgroup limits allow, at least 1 */
int fc_team_workers(void);       /* workers alive now */
void fc_team_limit(int threads); /* no job uses more than this; 0: no limit */
int fc_team_get_limit(void);
#endif
