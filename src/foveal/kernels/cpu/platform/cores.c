/* Where threads begin.

   Linux may put a new thread on the core of its maker, where it waits for milliseconds while another core does
   nothing: on virtual machines a core that sleeps looks to it like one that was taken away. */
#if defined(__linux__) && !defined(__ANDROID__)
#define _GNU_SOURCE
#include <sched.h>
#include "platform/cores.h"

/* Move a thread that was just started to any other core; from there it may go wherever its maker may. Where the
   system has no other core, or refuses, it stays. */
void leave_this_core(pthread_t thread) {
    cpu_set_t allowed, others;
    const int here = sched_getcpu();
    if (here < 0 || here >= CPU_SETSIZE || sched_getaffinity(0, sizeof(allowed), &allowed)) return;
    others = allowed;
    CPU_CLR(here, &others);
    if (!CPU_COUNT(&others) || pthread_setaffinity_np(thread, sizeof(others), &others)) return;
    pthread_setaffinity_np(thread, sizeof(allowed), &allowed);
}
#else
#include "platform/cores.h"

void leave_this_core(pthread_t thread) { (void)thread; }
#endif
