"""Programs run in processes that were forked while threads were at work."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from foveal.program import CoarseToFineRun, DenseRun, Program, SegBlocksRun

WAYS = (DenseRun(), CoarseToFineRun(0.5, coarse_level=2), SegBlocksRun(0.5))
SECONDS = 120


@pytest.fixture
def three_threads() -> Iterator[None]:
    """Let PyTorch keep threads that a forked process does not get."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    torch.nn.functional.avg_pool2d(torch.rand(1, 64, 256, 256), 3)
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system that does not fork")
def test_a_forked_worker_computes_the_same(three_threads: None, program: Callable[[str], Program]) -> None:
    p, image = program("swiftnet_nano"), torch.rand(2, 3, 130, 170).numpy()

    def run(way: DenseRun) -> np.ndarray:
        return p.run(image, way, threads=3, logits=True).logits

    def work(end: multiprocessing.connection.Connection) -> None:
        end.send([run(way) for way in WAYS])

    expected = [run(way) for way in WAYS]
    context = multiprocessing.get_context("fork")
    with ThreadPoolExecutor(4) as pool:
        busy = [pool.submit(run, way) for way in WAYS * 8]
        for _ in range(3):
            here, there = context.Pipe()
            worker = context.Process(target=work, args=(there,))
            worker.start()
            try:
                assert here.poll(SECONDS), "a forked worker hangs"
                found = here.recv()
                worker.join(SECONDS)
                assert worker.exitcode == 0
            finally:
                worker.kill()
            for x, y in zip(found, expected, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)
        for way, job in zip(WAYS * 8, busy, strict=True):
            np.testing.assert_allclose(job.result(), expected[WAYS.index(way)], rtol=1e-4, atol=1e-4)
