/* The thread team on its own, for the thread sanitizer: simultaneous callers, jobs of every
 * size, some of them cancelled.
 *
 *     cc -std=gnu11 -O1 -g -fsanitize=thread -pthread -Isrc \
 *         tests/engine/callerstest.c src/team.c src/watch.c && ./a.out 8 12500
 *
 * Arguments: callers, jobs per caller. Prints how many jobs ran; the exit status is 0 if all
 * sums were right. */
#include "team.h"
#include "watch.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 97 };
typedef struct {
    long cell[MOST]; /* one cell per part: each belongs to one thread at a time */
    int members;
    atomic_int wrong;
} Sums;

static void add(void *context, ptrdiff_t part, int member) {
    Sums *s = context;
    if (member < 0 || member >= s->members) atomic_store(&s->wrong, 1);
    s->cell[part] += part + 1;
}

static int jobs;
static atomic_long done;
static atomic_int wrong;

static int call_off(void) { return 1; }

static void *caller(void *number) {
    unsigned state = 12345u + 977u * (unsigned)(size_t)number;
    for (int i = 0; i < jobs; i++) {
        Sums s = {{0}, 0, 0};
        state = state * 1664525u + 1013904223u;
        const int pair = i % 3 == 0; /* a pair of parts, for two threads */
        const ptrdiff_t parts = pair              ? 2
                                : state >> 8 & 63 ? (ptrdiff_t)(state >> 16) % MOST + 1
                                                  : 0;
        s.members = pair ? 2 : (int)(state >> 4 & 7) + 1;
        const int doomed = i % 500 == 499;
        fc_watch before = {NULL, 0, 0};
        if (doomed) before = fc_watch_begin(call_off), fc_watch_cancel();
        fc_team_run(s.members, parts, add, &s);
        if (doomed && !fc_watch_end(before)) atomic_store(&wrong, 1);
        for (ptrdiff_t p = 0; p < parts; p++)
            if (s.cell[p] != (doomed ? 0 : p + 1)) atomic_store(&wrong, 1);
        if (atomic_load(&s.wrong)) atomic_store(&wrong, 1);
        atomic_fetch_add(&done, 1);
    }
    return NULL;
}

int main(int count, char **argument) {
    const int callers = count > 1 ? atoi(argument[1]) : 8;
    jobs = count > 2 ? atoi(argument[2]) : 12500;
    pthread_t *threads = calloc((size_t)callers, sizeof *threads);
    for (int i = 0; i < callers; i++) pthread_create(&threads[i], NULL, caller, (void *)(size_t)i);
    for (int i = 0; i < callers; i++) pthread_join(threads[i], NULL);
    free(threads);
    printf("%ld jobs of %d callers, %d workers: %s\n", atomic_load(&done), callers,
           fc_team_workers(), atomic_load(&wrong) ? "WRONG" : "right");
    return atomic_load(&wrong);
}
