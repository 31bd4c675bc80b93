"""Memory for the results of C kernels, used again and again.

A network writes tens of megabytes per layer. Memory fresh from the system is mapped and zeroed page by page
as it is touched, which can take longer than the convolution that writes it; an allocator that returns or
splits large blocks pays that anew for every image. Blocks are therefore kept here, in huge pages where the
system has them, and come back by themselves when the last tensor that uses them is gone.

`FOVEAL_WORKSPACE=0` switches it off; PyTorch's allocator then serves.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
import weakref

import numpy as np
import torch
from torch import Tensor

SMALLEST = 1 << 20
"""Results below this size [B] are left to PyTorch's allocator."""

PAGE = 1 << 21
"""Blocks are multiples of a huge page [B]."""

PATIENCE = 500
"""Blocks that were not wanted for so many results are given back to the system."""


class Workspace:
    """A pool of blocks; the smallest free one that is large enough serves a request."""

    def __init__(self) -> None:
        self._free: list[tuple[int, mmap.mmap]] = []
        self._lock = threading.RLock()
        self._turn = 0
        self.bytes = 0

    def empty(self, *shape: int) -> Tensor:
        """Return a contiguous float32 tensor with arbitrary content."""
        count = math.prod(shape)
        if 4 * count < SMALLEST or os.environ.get("FOVEAL_WORKSPACE") == "0":
            return torch.empty(shape)
        block = self._take(-(-4 * count // PAGE) * PAGE)
        array = np.frombuffer(block, dtype=np.float32, count=count)
        weakref.finalize(array, self._give, block).atexit = False
        return torch.from_numpy(array).view(shape)

    def _take(self, size: int) -> mmap.mmap:
        with self._lock:
            self._turn += 1
            self._drop([k for k, (turn, _) in enumerate(self._free) if turn < self._turn - PATIENCE])
            fitting = [k for k, (_, block) in enumerate(self._free) if len(block) >= size]
            if fitting:
                return self._free.pop(min(fitting, key=lambda k: len(self._free[k][1])))[1]
            self.bytes += size
        block = mmap.mmap(-1, size)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            block.madvise(mmap.MADV_HUGEPAGE)
        return block

    def _give(self, block: mmap.mmap) -> None:
        with self._lock:
            self._free.append((self._turn, block))

    def _drop(self, places: list[int]) -> None:
        """Forget free blocks; the system gets them back when nothing refers to them any more."""
        for k in reversed(places):
            self.bytes -= len(self._free.pop(k)[1])

    def clear(self) -> None:
        """Give all free blocks back to the system."""
        with self._lock:
            self._drop(list(range(len(self._free))))


WORKSPACE = Workspace()


def empty(*shape: int) -> Tensor:
    """Return a contiguous float32 tensor on the CPU with arbitrary content, from the workspace."""
    return WORKSPACE.empty(*shape)
