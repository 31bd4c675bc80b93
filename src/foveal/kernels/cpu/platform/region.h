/* Run a function of a team in a parallel region of its own: `call` names `team`. */
#ifndef FOVEAL_REGION_H
#define FOVEAL_REGION_H

#include "platform/rows.h"
#include "platform/team.h"

static inline Team team_here(int64_t *next) {
#ifdef _OPENMP
    return (Team){omp_get_thread_num(), omp_get_num_threads(), next};
#else
    return (Team){0, 1, next};
#endif
}

#define IN_REGION(call)                     \
    do {                                    \
        int64_t next_ = 0;                  \
        _Pragma("omp parallel") {           \
            const Team team = team_here(&next_); \
            call;                           \
        }                                   \
    } while (0)

#endif
