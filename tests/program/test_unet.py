"""Networks that join maps, with every kind of enlargement, in every precision."""

from __future__ import annotations

import random
from functools import cache

import pytest
import torch

from foreign import UNet, picture
from foveal.fusion import fuse
from foveal.geometry.plan import Plan
from foveal.program import CoarseToFineRun, PlannedRun, Program, compile_network
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
    made = compile_network(network(mode), multiple=4)
    if precision == "bf16":
        return in_bf16(made)
    return made if precision == "f32" else in_int8(made, find_scales(made, [picture(size=SIZE).numpy()], 0.0))


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
