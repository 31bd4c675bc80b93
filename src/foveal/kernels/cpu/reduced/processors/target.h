/* TARGET("features") compiles what follows for a processor that may not be the one of the rest; TARGET_END
   ends it. Headers of intrinsics are included before. */
#ifndef FOVEAL_TARGET_H
#define FOVEAL_TARGET_H
#define PRAGMA(text) _Pragma(#text)
#ifdef __clang__
#define TARGET(features) PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define TARGET_END PRAGMA(clang attribute pop)
#else
#define TARGET(features) PRAGMA(GCC push_options) PRAGMA(GCC target(features))
#define TARGET_END PRAGMA(GCC pop_options)
#endif
#endif
