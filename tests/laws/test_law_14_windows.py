"""Law 14: an image that is processed by windows with what they look at equals the image processed whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import foveal
from foveal.calibration.engine import Engine
from foveal.inference.large import segment_large
from foveal.inference.large.network import WindowNetwork
from foveal.methods import METHODS
from foveal.storage.labels import VOID
from networks import RandomNetwork
from samples import nano

TILE, LEVEL = 16, 1
CLOSE = 1e-3
"""Classes whose logits are so close may change places by rounding."""


def engine_of(seed: int) -> Engine:
    torch.manual_seed(seed)
    network = RandomNetwork(Random(seed), context=False)
    network.corners = False
    with torch.no_grad():  # all classes occur
        logits = network(blobs(seed, (96, 96)))
        network.head.weight /= logits.std((0, 2, 3)).view(-1, 1, 1, 1) / 2
        network.head.bias.copy_(network.head.bias * 0 - network(blobs(seed, (96, 96))).mean((0, 2, 3)))
    return foveal.adapt(network, tile=TILE, coarse_level=LEVEL).engine


def blobs(seed: int, size: tuple[int, int]) -> Tensor:
    """An image [1, 3, H, W] in 0..1, smooth and of bytes."""
    few = torch.rand(1, 3, size[0] // 6 + 2, size[1] // 6 + 2, generator=torch.Generator().manual_seed(seed))
    image = F.interpolate(few, size=size, mode="bicubic").clamp(0, 1)
    return (image * 255).round() / 255


def as_array(image: Tensor) -> np.ndarray[Any, Any]:
    return (image[0] * 255).round().byte().permute(1, 2, 0).numpy()


def check_labels(found: Tensor, expected: Tensor, logits: Tensor) -> None:
    """Compare labels; they may differ where the two largest logits are the same but for rounding."""
    top = logits.float().topk(2, 1).values
    close = F.max_pool2d(
        ((top[:, 0] - top[:, 1]) < CLOSE * float(logits.abs().max())).float()[:, None], 3, 1, 1
    )
    spread = F.interpolate(close, size=tuple(found.shape), mode="nearest")[0, 0] > 0
    differ = (found != expected) & ~spread
    assert not bool(differ.any()), f"{int(differ.sum())} of {differ.numel()} labels differ"


def whole(engine: Engine, image: Tensor, wanted: Tensor, refined: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and logits of the image at once, under a plan."""
    network = WindowNetwork(engine, TILE, LEVEL)
    near = torch.zeros_like(wanted) if bool((wanted == refined).all()) else wanted
    answer = network(image, near, refined)
    spread = wanted.repeat_interleave(TILE, 0).repeat_interleave(TILE, 1)[: image.shape[2], : image.shape[3]]
    return answer.labels.masked_fill(~spread, VOID), answer.logits


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 5),
    size=st.tuples(st.integers(20, 210), st.integers(20, 210)),
    window=st.integers(20, 120),
    budget=st.sampled_from([0.45, 0.6, 0.8, 1.0]),
    masked=st.booleans(),
    compiled=st.booleans(),
)
def test_windows_equal_the_whole_image(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    size: tuple[int, int],
    window: int,
    budget: float,
    masked: bool,
    compiled: bool,
) -> None:
    engine = engine_of(seed)
    engine = engine if compiled else replace(engine, program=None)
    image, out = blobs(seed + 10, size), tmp_path_factory.mktemp("large") / "labels.png"
    mask = (
        np.random.default_rng(seed).random((size[0] // 40 + 1, size[1] // 40 + 1)) < 0.6 if masked else None
    )
    try:
        found = segment_large(engine, as_array(image), out, budget=budget, window=window, mask=mask)
    except ValueError as error:  # small images have coarse tiles that hang over their edges
        assert "coarse pass" in str(error)
        return
    assert found.reach is not None and found.plan is not None
    labels = torch.from_numpy(np.array(Image.open(out)))
    if not bool(found.plan.wanted.any()):
        assert bool((labels == VOID).all()) and found.work == 0
        return
    check_labels(labels, *whole(engine, image, found.plan.wanted, found.plan.refined))


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("policy", ["weighted_entropy", "margin", "logit_margin"])
def test_plan_and_labels_are_those_of_the_method(level: int, policy: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = RandomNetwork(Random(3), context=False)
    network.corners = False
    engine = foveal.adapt(network, tile=TILE, coarse_level=level).engine
    image, out = blobs(1, (203, 310)), tmp_path / "labels.png"
    config = METHODS["coarse_to_fine"].Config(
        0.5, policy=policy, tile=TILE, coarse_level=level, schedule="direct"
    )
    if policy == "logit_margin":  # which programs do not have
        engine = replace(engine, program=None)
    with torch.inference_mode():
        expected = engine.make("coarse_to_fine", config)(image)
    asked = {"policy": policy, "tile": TILE, "coarse_level": level}
    found = segment_large(engine, as_array(image), out, budget=0.5, window=64, settings=asked)
    assert expected.trace.levels is not None and found.plan is not None
    assert torch.equal(found.plan.levels(level).int(), expected.trace.levels[0].int())
    check_labels(torch.from_numpy(np.array(Image.open(out))), expected.labels[0], expected.logits)
    assert found.planned == pytest.approx(float(expected.trace.work[0]), abs=1e-6)


def test_a_network_that_sees_whole_maps_says_so_and_sees_its_window(tmp_path: Path) -> None:
    engine = foveal.adapt(nano(5), tile=32, coarse_level=1).engine
    image, out = blobs(1, (130, 170)), tmp_path / "labels.png"
    found = segment_large(engine, as_array(image), out, budget=0.6, window=1000)
    assert found.reach is None and found.plan is not None
    network = WindowNetwork(engine, 32, 1)
    answer = network(image, found.plan.wanted, found.plan.refined)  # one window: its context is the image
    check_labels(torch.from_numpy(np.array(Image.open(out))), answer.labels, answer.logits)


def test_a_network_that_places_maps_by_the_sides_of_the_image_is_found_out() -> None:
    from foveal.inference.large.reach import measure_reach

    network = RandomNetwork(Random(1), context=False)
    network.transposed, network.by_size, network.corners = None, True, True
    assert measure_reach(network, 3, 16) is None
    network.corners = False
    assert measure_reach(network, 3, 16) is not None
