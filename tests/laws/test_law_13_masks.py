"""Law 13: a masked place costs nothing and changes nothing outside the mask's reach."""

from __future__ import annotations

from math import prod
from random import Random

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from conformance import CLASSES, Networks, assert_close, make
from foveal.calibration.engine import find_engine
from foveal.cost import count_macs
from foveal.data.pairs import default_palette
from foveal.geometry.plan import grid
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model
from foveal.methods import METHODS, AdaptiveSegmenter, CompiledFrames, CompiledMethod
from samples import headless
from strategies import random_size, sources

ABLE = [name for name, kind in METHODS.items() if kind.supports_masks]
NOT_COMPILED = {"layer_cascade"}
"""Methods that programs do not have."""
WAYS = [(n, how) for how in ("modules", "program") for n in ABLE if how != "program" or n not in NOT_COMPILED]
TILE, SIZE = 16, (128, 160)
STRIDE = 4
"""Image pixels per sample of the logits of the network without context, which sees 7 px around."""


def compiled(name: str, budget: float) -> AdaptiveSegmenter:
    card = Card("swiftnet_nano", tuple("abcde"), default_palette(CLASSES), TILE)
    engine = find_engine(Model("small", headless(CLASSES), card))  # type: ignore[arg-type]
    made = engine.make(name, METHODS[name].Config(budget, tile=TILE))  # type: ignore[call-arg]
    assert isinstance(made, CompiledMethod | CompiledFrames)
    return made


@pytest.fixture(params=[" ".join(way) for way in WAYS])
def everything(request: pytest.FixtureRequest, networks: Networks) -> AdaptiveSegmenter:
    """Give every method that takes masks, at full resolution, run both ways."""
    name, how = request.param.split()
    if how == "program":
        return compiled(name, 1.0)
    return make(name, networks.headless(), budget=1.0, tile=TILE, levels=2)


def square(size: tuple[int, int] = SIZE) -> Tensor:
    """Want the cells of a square."""
    wanted = torch.zeros(1, *grid(size, TILE), dtype=torch.bool)
    wanted[:, 1:6, 2:7] = True
    return wanted


def inside(wanted: Tensor) -> Tensor:
    """Mark the samples of the cells [1, Gh, Gw] whose neighbours are all wanted or beyond the image."""
    unwanted = (~wanted).float()[:, None]
    near = torch.nn.functional.max_pool2d(unwanted, 3, 1, 1)[:, 0] > 0
    step = TILE // STRIDE
    return (wanted & ~near).repeat_interleave(step, 1).repeat_interleave(step, 2)


@torch.no_grad()
def test_what_is_wanted_is_as_without_a_mask(everything: AdaptiveSegmenter) -> None:
    image, wanted = torch.rand(1, 3, *SIZE), square()
    whole, masked = everything(image), everything.masked(image, wanted)
    there = inside(wanted)
    assert int(there.sum()) == 9 * (TILE // STRIDE) ** 2
    ours, theirs = (p.logits.permute(0, 2, 3, 1)[there] for p in (masked, whole))
    assert_close(ours, theirs, 1e-4)


@torch.no_grad()
def test_masked_places_cost_nothing(everything: AdaptiveSegmenter) -> None:
    image, wanted = torch.rand(1, 3, *SIZE), square()
    work = everything.masked(image, wanted).trace.work
    assert float(work) == pytest.approx(int(wanted.sum()) * TILE**2 / prod(SIZE))
    spent, whole = (
        count_macs(lambda: everything.masked(image, wanted)).total,
        count_macs(lambda: everything(image)).total,
    )
    assert spent < 1.35 * float(work) * whole  # halos and the logits' enlargement beside the plan


@torch.no_grad()
def test_what_lies_in_masked_places_changes_nothing(everything: AdaptiveSegmenter) -> None:
    image, wanted = torch.rand(1, 3, *SIZE), square()
    other = image.clone()
    pixels = wanted.repeat_interleave(TILE, 1).repeat_interleave(TILE, 2)
    other[(~pixels)[:, None].expand_as(other)] = 0.5
    there = wanted.repeat_interleave(TILE // STRIDE, 1).repeat_interleave(TILE // STRIDE, 2)
    first, second = (everything.masked(x, wanted).logits.permute(0, 2, 3, 1)[there] for x in (image, other))
    assert torch.equal(first, second)


@pytest.mark.parametrize(("name", "how"), WAYS)
@settings(max_examples=12)
@given(source=sources())
def test_any_mask_costs_no_more_and_keeps_what_it_wants(name: str, how: str, source: Random) -> None:
    torch.manual_seed(source.randint(0, 2**30))
    size = tuple(max(TILE, side) for side in random_size(source, TILE, 7))
    image = torch.rand(1, 3, *size)
    wanted = torch.rand(1, *grid((size[0], size[1]), TILE)) < source.uniform(0.3, 0.95)
    wanted[0, 0, 0] = True
    method = (
        compiled(name, 1.0)
        if how == "program"
        else make(name, headless(CLASSES), budget=1.0, tile=TILE, levels=2)
    )
    with torch.no_grad():
        whole, masked = method(image), method.masked(image, wanted)
    assert float(masked.trace.work) <= float(whole.trace.work)
    height, width = whole.logits.shape[2:]
    there = inside(wanted)[:, :height, :width]
    if there.any():
        ours, theirs = (p.logits.permute(0, 2, 3, 1)[there] for p in (masked, whole))
        assert_close(ours, theirs, 1e-4)
    levels = masked.trace.levels
    assert levels is not None
    assert bool(((levels >= 0) | ~wanted).all()), "all that is wanted is computed"
    assert bool(((levels < 0) | wanted).all()), "at full resolution nothing else is"
