/* A team of threads inside one parallel region: every member calls the same function with the same arguments,
   tasks are handed out by a shared counter, and a barrier follows. So a whole network runs in one region. */
#ifndef FOVEAL_TEAM_H
#define FOVEAL_TEAM_H

#include <stdint.h>

typedef struct {
    int32_t thread, threads;
    int64_t *next; /* number of the next task; zero before the function is called, shared by the team */
} Team;

/* Take the number of the next task; the caller stops at the number of tasks. */
static inline int64_t take(const Team *team) { return __atomic_fetch_add(team->next, 1, __ATOMIC_RELAXED); }

/* How many of `count` lines make a task: enough tasks to share, few enough to take. */
static inline int64_t lines_per_task(int64_t count, const Team *team) {
    const int64_t lines = count / (8 * (int64_t)team->threads);
    return lines < 1 ? 1 : lines;
}

#endif
