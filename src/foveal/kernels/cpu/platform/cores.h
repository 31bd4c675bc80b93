#ifndef FOVEAL_CORES_H
#define FOVEAL_CORES_H

#include <pthread.h>

void leave_this_core(pthread_t thread);

#endif
