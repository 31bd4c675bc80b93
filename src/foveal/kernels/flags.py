"""How the C kernels are compiled: read by `foveal.kernels.build`, and by the hook that builds wheels.

This file imports nothing, so that it can be read where Foveal is not installed.
"""

FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fPIC", "-fvisibility=hidden", "-fno-math-errno")
"""Flags for every source, whatever the processor."""

OPENMP = "-fopenmp"

PREBUILT = {"x86-64-v4": "avx512f", "x86-64-v3": "avx2", "aarch64": "asimd"}
"""Targets that wheels bring, best first, and the processor feature that each needs."""

MACHINES = {"x86_64": ("x86-64-v3", "x86-64-v4"), "aarch64": ("aarch64",)}
"""Targets that a wheel for a machine brings."""


def architecture(target: str) -> str:
    """Return the compiler's flag for a target."""
    return f"-march={'armv8-a' if target == 'aarch64' else target}"
