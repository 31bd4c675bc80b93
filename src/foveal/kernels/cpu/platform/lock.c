/* The locks of all programs, which forked processes get open.

   A process may be forked while another thread packs weights or takes memory. Its copy of that thread is gone, so
   a lock that it held would never be opened again: whoever forks therefore takes the locks first, and opens them on
   both sides. What they guard is whole then. */
#include <pthread.h>
#include "platform/lock.h"

static pthread_mutex_t locks[LOCKS] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int failed;

void lock_take(int32_t lock) { pthread_mutex_lock(&locks[lock]); }

void lock_give(int32_t lock) { pthread_mutex_unlock(&locks[lock]); }

static void before_fork(void) {
    for (int32_t k = 0; k < LOCKS; k++) lock_take(k);
}

static void after_fork(void) {
    for (int32_t k = LOCKS - 1; k >= 0; k--) lock_give(k);
}

static void watch(void) { failed = pthread_atfork(before_fork, after_fork, after_fork); }

int locks_survive_forks(void) {
    pthread_once(&once, watch);
    return failed;
}
