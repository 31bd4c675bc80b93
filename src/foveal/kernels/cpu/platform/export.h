#ifndef FOVEAL_EXPORT_H
#define FOVEAL_EXPORT_H
#define EXPORT __attribute__((visibility("default")))
#endif
