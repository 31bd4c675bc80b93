"""Networks that join maps, with every kind of enlargement, in every precision."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from foreign import UNet, picture
from foveal.fusion import fuse
from foveal.geometry.plan import Plan
from foveal.program import CoarseToFineRun, PlannedRun, Program, compile_network, load_program
from foveal.program.quantise import find_scales, in_bf16, in_int8
from foveal.tiles import split
from strategies import random_plan

SIZE = (144, 208)
MODES = ("bilinear", "nearest", "transposed")


@cache
def network(mode: str) -> UNet:
    torch.manual_seed(0)
    return UNet(mode=mode).eval()


@cache
def program(mode: str, precision: str) -> Program:
    return in_precision(compile_network(network(mode), multiple=4), precision, picture(size=SIZE))


def in_precision(made: Program, precision: str, image: Tensor) -> Program:
    if precision == "bf16":
        return in_bf16(made)
    return made if precision == "f32" else in_int8(made, find_scales(made, [image.numpy()], 0.0))


@torch.no_grad()
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(4))
def test_plans_of_all_levels(mode: str, seed: int) -> None:
    """Law 15 where maps are joined."""
    plan = random_plan(random.Random(seed), 2, SIZE, 16, seed % 3, 0.2)
    image = picture(size=SIZE, count=2)
    expected = fuse(network(mode))(split(image, plan)).dense().permute(0, 2, 3, 1).numpy()
    found = program(mode, "f32").run(image, PlannedRun(plan.levels.numpy(), tile=16), logits=True).logits
    assert abs(found - expected).max() / abs(expected).max() < 1e-4


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.02), ("int8", 0.1)])
def test_reduced_precision(mode: str, precision: str, limit: float) -> None:
    image = picture(size=SIZE, count=2)
    plan = Plan.uniform(2, SIZE, 16, 0).levels.numpy().copy()
    plan[:, :4, :4], plan[:, 6:8, 8:10] = 1, -1
    for settings in (None, PlannedRun(plan, tile=16), CoarseToFineRun(0.6, tile=16)):
        exact, found = (program(mode, p).run(image, settings, logits=True) for p in ("f32", precision))
        spread = abs(exact.logits - exact.logits.mean()).mean()
        if (exact.levels == found.levels).all():
            assert abs(exact.logits - found.logits).mean() / spread < limit
        assert (found.labels == exact.labels).mean() > 0.9


def test_another_enlargement_is_named() -> None:
    with pytest.raises(ValueError, match="no bilinear or nearest enlargement"):
        compile_network(network("bicubic"), multiple=4)


def test_only_bilinear_enlargement_multiplies() -> None:
    image = picture(size=SIZE)
    assert program("nearest", "f32").run(image).macs < program("bilinear", "f32").run(image).macs


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 2, 4, 12])
@pytest.mark.parametrize(("precision", "limit"), [("f32", 1e-4), ("bf16", 0.02), ("int8", 0.1)])
def test_images_of_any_channels(channels: int, precision: str, limit: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, image = UNet(channels).eval(), picture(channels, SIZE, count=2)
    net.in_channels = channels
    made = in_precision(compile_network(net, multiple=4), precision, image)
    made.save(tmp_path / "net.foveal")
    program = load_program(tmp_path / "net.foveal")
    assert program.channels == channels
    found, expected = program.run(image, logits=True).logits, net(image).permute(0, 2, 3, 1).numpy()
    assert abs(found - expected).mean() / abs(expected - expected.mean()).mean() < limit
    levels = program.run(image, CoarseToFineRun(0.6, tile=16)).levels
    assert levels.min() == 0 and levels.max() == 1  # images are reduced, and cut into tiles
    bytes_ = (image * 255).round().byte()
    one = program.run(bytes_.permute(0, 2, 3, 1).contiguous(), logits=True).logits
    two = program.run(bytes_.float() / 255, logits=True).logits
    assert abs(one - two).max() <= 1e-5 * abs(two).max()
    with pytest.raises(ValueError, match=rf"give float32 \[N, {channels}, H, W\]"):
        program.run(picture(channels + 1, SIZE))


@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
def test_sides_that_the_network_cannot_take_are_refused(precision: str, tmp_path: Path) -> None:
    """Mixed levels would silently give something else than the network's own layers."""
    made = program("bilinear", precision)
    made.save(tmp_path / "net.foveal")
    for each in (made, load_program(tmp_path / "net.foveal")):
        for size in ((144, 210), (143, 208)):
            with pytest.raises(ValueError, match=f"images are {size[0]}x{size[1]} px .* multiples of 4; pad"):
                each.run(picture(size=size).numpy(), CoarseToFineRun(0.6, tile=16))
        each.run(picture(size=(148, 204)).numpy(), CoarseToFineRun(0.6, tile=16))
