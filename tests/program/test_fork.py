"""Programs run in processes that were forked while threads were at work."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system that does not fork")
def test_a_fork_while_weights_are_packed_does_not_hang(program: Callable[[str], Program]) -> None:
    tables, image = program("swiftnet_rn18_s16").tables, torch.rand(1, 3, 32, 32).numpy()
    expected = program("swiftnet_rn18_s16").run(image, threads=1).labels
    latest, packing, enough = [Program(tables)], threading.Event(), threading.Event()

    def pack() -> None:  # a program lays its weights out in its first run
        while not enough.is_set():
            latest[0] = Program(tables)
            packing.set()
            latest[0].run(image, threads=1)

    worker = threading.Thread(target=pack)
    worker.start()
    try:
        for _ in range(20):
            packing.clear()
            assert packing.wait(SECONDS)
            child = os.fork()
            if not child:
                os._exit(0 if np.array_equal(latest[0].run(image, threads=1).labels, expected) else 1)
            assert _status(child) == 0
    finally:
        enough.set()
        worker.join()


def _status(child: int) -> int:
    """Wait for a process; one that hangs is killed."""
    end = time.monotonic() + SECONDS / 4
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise AssertionError("a forked process hangs")
