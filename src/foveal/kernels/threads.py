"""Threads of OpenMP that wait for work by spinning."""

from __future__ import annotations

import ctypes

SOFT = 1


def let_threads_go() -> bool:
    """Let the threads go that PyTorch keeps for parallel regions; the next region starts new ones.

    They spin for milliseconds after a region, on the cores that threads of another kind are about to use:
    those of programs (which let them go by themselves), of OpenVINO or of ONNX Runtime.

    Returns:
        Whether there is an OpenMP that can do so.
    """
    try:
        pause = ctypes.CDLL(None).omp_pause_resource_all
    except (OSError, AttributeError, TypeError):
        return False
    return pause(SOFT) == 0
