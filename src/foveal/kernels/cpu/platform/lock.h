/* The locks of all programs. */
#ifndef FOVEAL_LOCK_H
#define FOVEAL_LOCK_H

#include <stdint.h>

enum { PACKING, CONTEXTS, LOCKS }; /* of weights that are laid out, and of memory that runs have left */

void lock_take(int32_t lock);
void lock_give(int32_t lock);

/* Let locks be open in processes that are forked from now on; 0 if that could be done. */
int locks_survive_forks(void);

#endif
