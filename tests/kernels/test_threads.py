"""Spinning threads of OpenMP are let go, and parallel regions go on as before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foveal.kernels.threads import let_threads_go


def count() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_threads_go_and_come_back_with_the_next_region() -> None:
    if not Path("/proc/self/task").is_dir() or not let_threads_go():
        pytest.skip("no OpenMP that can let threads go")
    threads, image = torch.get_num_threads(), torch.rand(1, 64, 128, 128)
    torch.set_num_threads(3)
    try:
        expected = torch.nn.functional.avg_pool2d(image, 3)
        busy = count()
        assert let_threads_go()
        assert count() < busy
        assert torch.equal(torch.nn.functional.avg_pool2d(image, 3), expected)
        assert count() >= busy - 1
    finally:
        torch.set_num_threads(threads)
        let_threads_go()
