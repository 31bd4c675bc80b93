from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from foveal.program import CoarseToFineRun, DenseRun, NotCompiled, PlannedRun, SegBlocksRun, compile_network

ALL = (DenseRun(), CoarseToFineRun(0.5, coarse_level=2), SegBlocksRun(0.5), CoarseToFineRun(0.8))


def test_four_threads_at_once_do_not_disturb_each_other(program) -> None:
    programs = [program("swiftnet_nano"), program("swiftnet_mobilenetv2")]
    images = [torch.rand(1 + k % 2, 3, 130 + 31 * k, 170).numpy() for k in range(4)]
    jobs = [(p, image, s) for p in programs for image in images for s in ALL]
    alone = [p.run(image, s, threads=1, logits=True) for p, image, s in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: job[0].run(job[1], job[2], threads=2, logits=True), jobs * 2))
    for k, result in enumerate(together):
        np.testing.assert_array_equal(result.levels, alone[k % len(jobs)].levels)
        np.testing.assert_allclose(result.logits, alone[k % len(jobs)].logits, rtol=1e-4, atol=1e-4)


def test_earlier_runs_leave_nothing_behind(program) -> None:
    p = program("swiftnet_nano")
    small, large = torch.rand(1, 3, 64, 96), torch.rand(2, 3, 256, 224)
    first = p.run(small, ALL[1], logits=True).logits
    for settings in ALL:
        p.run(large, settings)
    np.testing.assert_array_equal(p.run(small, ALL[1], logits=True).logits, first)


def test_memory_of_earlier_runs_can_be_given_back(program) -> None:
    p, image = program("swiftnet_nano"), torch.rand(1, 3, 128, 160)
    first = p.run(image, ALL[1], logits=True).logits
    for _ in range(2):
        p.release()
        np.testing.assert_array_equal(p.run(image, ALL[1], logits=True).logits, first)
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(p.run, image, ALL[1], logits=True) for _ in range(6)]
        p.release()
        for job in running:
            np.testing.assert_array_equal(job.result().logits, first)


def test_appended_tiles_leave_earlier_ones_alone(program) -> None:
    """Places that no later pass touches keep the answer of the first one; their own tiles are not written."""
    p, image = program("swiftnet_nano"), torch.rand(1, 3, 256, 256)
    mask = np.ones((1, 8, 8), np.uint8)
    two = p.run(image, CoarseToFineRun(0.45, coarse_level=1), logits=True)
    again = p.run(image, CoarseToFineRun(0.45, coarse_level=1), mask=mask, logits=True)  # all passes as tiles
    assert (two.levels == again.levels).all() and {0, 1} == set(two.levels.flatten().tolist())
    np.testing.assert_allclose(two.logits, again.logits, rtol=1e-4, atol=1e-4)


def test_bytes_and_floats_say_the_same(program) -> None:
    p = program("swiftnet_nano")
    image = np.random.default_rng(0).integers(0, 256, (2, 90, 110, 3), dtype=np.uint8)
    floats = np.ascontiguousarray(image.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    for settings in ALL:
        one, two = p.run(image, settings, logits=True), p.run(floats, settings, logits=True)
        np.testing.assert_allclose(one.logits, two.logits, rtol=1e-5, atol=1e-5)


def test_confidence_is_the_probability_of_the_label(program, network) -> None:
    image = torch.rand(1, 3, 61, 83)
    result = program("swiftnet_nano").run(image, confidence=True)
    logits = network("swiftnet_nano")(image)
    large = nn.functional.interpolate(logits, scale_factor=4, mode="bilinear")[:, :, :61, :83]
    expected, labels = large.softmax(1).max(1)
    np.testing.assert_allclose(result.confidence, expected.detach().numpy(), rtol=1e-4)
    assert (result.labels == labels.numpy()).mean() > 0.999
    assert (result.labels == program("swiftnet_nano").run(image).labels).all()


def test_macs_of_the_dense_network_are_those_that_are_counted(program, network) -> None:
    from foveal.cost import count_macs

    image = torch.rand(1, 3, 128, 96)
    counted = count_macs(lambda: network("swiftnet_nano")(image)).total
    assert program("swiftnet_nano").run(image).macs == counted


def test_a_profile_names_every_step(program) -> None:
    result = program("swiftnet_nano").run(torch.rand(1, 3, 128, 128), ALL[1], profile=True)
    assert {"encoder_stem_0_0_joined", "decide", "compose", "label"} <= set(result.step_ms)
    assert result.passes == 2 or result.passes == 3


@pytest.mark.parametrize(
    ("image", "settings", "mask", "says"),
    [
        (np.zeros((1, 3, 8, 8)), None, None, "float64"),
        (np.zeros((3, 8, 8), np.float32), None, None, "give float32"),
        (np.zeros((1, 3, 0, 8), np.float32), None, None, "empty"),
        (np.zeros((1, 3, 64, 64), np.float32), DenseRun(24), None, "multiple"),
        (np.zeros((1, 3, 64, 64), np.float32), None, np.ones((1, 3, 2)), "mask is"),
        (np.zeros((1, 3, 64, 64), np.float32), PlannedRun(np.ones((1, 2, 3), np.int8)), None, "plan is"),
        (np.zeros((1, 3, 64, 64), np.float32), PlannedRun(np.array([[[0, 1], [1, 1]]])), None, "quadtree"),
        (np.zeros((1, 3, 64, 64), np.float32), PlannedRun(np.full((1, 2, 2), 9)), None, "-1"),
        (np.zeros((1, 3, 640, 640), np.float32), CoarseToFineRun(0.1), None, "raise the budget"),
        (np.zeros((1, 3, 640, 640), np.float32), SegBlocksRun(0.1), None, "budget"),
    ],
)
def test_bad_input_is_refused(image, settings, mask, says: str, program) -> None:
    with pytest.raises(ValueError, match=says):
        program("swiftnet_nano").run(image, settings, mask)


class Softmax(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).softmax(1)


class WideWindows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 13, padding=6, groups=8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.mark.parametrize(("network", "says"), [(Softmax(), "softmax"), (WideWindows(), "13x13")])
def test_what_has_no_step_is_named(network: nn.Module, says: str) -> None:
    with pytest.raises(NotCompiled, match=says):
        compile_network(network)
