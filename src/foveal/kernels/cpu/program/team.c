/* The team of threads of a run, and the place where its members meet.

   The threads live as long as a run, so a program can be used in any thread and after a fork, and needs no
   OpenMP. Members wait for each other by spinning for a moment, then they yield their core. */
#include <sched.h>
#include "platform/cores.h"
#include "program/program.h"

enum { SPINS = 4000 };

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Wait until all members are here; the next step's tasks are counted from zero. */
void meet(Run *r, Team team) {
    if (team.threads == 1) {
        r->next = 0;
        return;
    }
    const int32_t generation = __atomic_load_n(&r->generation, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&r->arrived, 1, __ATOMIC_ACQ_REL) == team.threads) {
        r->arrived = 0;
        r->next = 0;
        __atomic_store_n(&r->generation, generation + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int64_t spins = 0; __atomic_load_n(&r->generation, __ATOMIC_ACQUIRE) == generation; spins++) {
        if (spins < SPINS) relax();
        else sched_yield();
    }
}

/* Threads of OpenMP that PyTorch has just used spin for milliseconds, on the cores that a team is about to use: they
   are let go, and come back with the next region. Weak: there may be no OpenMP, or an older one. */
extern int let_go(int kind) __asm__("omp_pause_resource_all") __attribute__((weak));
enum { PAUSE_SOFT = 1 };

typedef struct {
    Run *run;
    void (*work)(Run *, Team);
    Team team;
} Member;

/* Wait for the word to go: the team is then as large as it could be made. */
static void *enter(void *given) {
    Member *m = given;
    while (!__atomic_load_n(&m->run->go, __ATOMIC_ACQUIRE)) sched_yield();
    m->team.threads = m->run->threads;
    m->work(m->run, m->team);
    return NULL;
}

/* Let all members of a team run a function; it is smaller than wanted where threads cannot be started. */
void team_run(Run *r, void (*work)(Run *, Team)) {
    Member members[MOST_THREADS] = {{0}};
    pthread_t threads[MOST_THREADS];
    int32_t started = 1;
    if (r->threads > 1 && let_go) let_go(PAUSE_SOFT);
    r->next = 0, r->arrived = 0, r->generation = 0, r->go = 0;
    members[0] = (Member){r, work, {0, 1, &r->next}};
    for (; started < r->threads; started++) {
        members[started] = (Member){r, work, {started, 1, &r->next}};
        if (pthread_create(&threads[started], NULL, enter, &members[started])) break;
        leave_this_core(threads[started]);
    }
    r->threads = started;
    __atomic_store_n(&r->go, 1, __ATOMIC_RELEASE);
    enter(&members[0]);
    for (int32_t k = 1; k < started; k++) pthread_join(threads[k], NULL);
}
