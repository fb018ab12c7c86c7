/* The thread team on its own, without Python: every part runs once, on more than one thread,
 * from several callers. Exits with 0 on success. */
#include "team.h"
#include "watch.h"
#include <stdatomic.h>
#include <stdio.h>

enum { PARTS = 500, JOBS = 2000 };
static atomic_int runs[PARTS], members[FC_MAX_THREADS];

static void part(void *context, ptrdiff_t i, int member) {
    (void)context;
    volatile double x = 0;
    for (int k = 0; k < 200; k++) x += k;
    atomic_fetch_add(&runs[i], 1);
    atomic_fetch_add(&members[member], 1);
}
static int stop(void) { return 1; }

int main(void) {
    for (int job = 0; job < JOBS; job++) fc_team_run(4, PARTS, part, NULL);
    for (int i = 0; i < PARTS; i++)
        if (runs[i] != JOBS) return printf("part %d ran %d times of %d\n", i, runs[i], JOBS), 1;
    if (fc_team_workers() != 3) return printf("%d workers; wanted 3\n", fc_team_workers()), 1;
    const int before_pairs = runs[1];
    for (int job = 0; job < JOBS; job++) fc_team_run(2, 2, part, NULL);
    if (runs[0] != before_pairs + JOBS || runs[1] != before_pairs + JOBS)
        return printf("of %d pairs %d and %d parts ran\n", JOBS, runs[0], runs[1]), 1;
    for (int job = 0; job < JOBS; job++) fc_team_run(4, 3, part, NULL);
    for (int i = 0; i < 3; i++)
        if (runs[i] != 2 * JOBS + (i < 2 ? JOBS : 0))
            return printf("part %d ran %d times\n", i, runs[i]), 1;
    if (!members[1] && !members[2] && !members[3]) return puts("the caller did it all"), 1;
    fc_team_limit(1);
    fc_team_run(4, PARTS, part, NULL);
    if (fc_team_get_limit() != 1 || fc_team_available() < 1) return puts("limit or count"), 1;
    fc_team_limit(0);
    const fc_watch before = fc_watch_begin(stop);
    fc_watch_cancel();
    fc_team_run(4, PARTS, part, NULL);
    if (!fc_watch_end(before) || runs[PARTS - 1] != JOBS + 1)
        return puts("a job that was called off ran"), 1;
    printf("team: %d jobs of %d parts on 4 threads, %d of them by workers\n", JOBS, PARTS,
           members[1] + members[2] + members[3]);
    return 0;
}
