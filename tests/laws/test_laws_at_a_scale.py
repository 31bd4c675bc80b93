"""The laws where the whole image is shrunk first: shares stay those of the whole image's dense work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import foveal
from conformance import ADAPTIVE, BY_TILES, CLASSES, NAMES, answer, assert_close, ordinary, ordinary_kind
from foreign import UNet, picture
from foreign import lively as lively_unet
from foveal.adaptive.opening import describe
from foveal.benchmark.contenders import StaticContender, StaticRivals
from foveal.benchmark.runtimes import Choice, fold_norms
from foveal.calibration.cost_model import CostModel, Measurement
from foveal.calibration.engine import Engine, find_engine
from foveal.calibration.latency import COSTS
from foveal.cost import count_macs
from foveal.data.pairs import default_palette
from foveal.evaluation.baselines import Reduced
from foveal.geometry.plan import grid
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model
from foveal.inference.runner import Runner
from foveal.methods import METHODS, MethodConfig
from foveal.methods.config import settings_of
from foveal.methods.scaling import ScaledMethod, pixel_share, shrink, shrunk_size
from samples import error_of, lively
from strategies import sources

SIZE = (192, 260)
SCALES = (0.9, 0.75, 0.5)


def config(name: str, budget: float, scale: float, **wishes: object) -> MethodConfig:
    """Make settings of any method, with a first pass at level 1."""
    known = settings_of(METHODS[name].Config)
    own = {key: value for key, value in {"coarse_level": 1, **wishes}.items() if key in known}
    return METHODS[name].Config(budget, scale=scale, **own)


@cache
def made_engine(kind: Callable[[int], Any]) -> Engine:
    """Compile a small network of a kind."""
    torch.manual_seed(0)
    network = lively(kind(CLASSES), torch.rand(3, *SIZE))
    card = Card("swiftnet_nano", tuple("abcde"), default_palette(CLASSES))
    return find_engine(Model("small", network, card))


@pytest.fixture(params=["program", "modules"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Give what runs a small network that the method of a test takes, compiled and layer by layer."""
    found = made_engine(ordinary_kind(request.node.callspec.params.get("name", "")))
    assert found.program is not None
    return found if request.param == "program" else replace(found, program=None)


@pytest.fixture
def image() -> Tensor:
    """Give a batch of two images."""
    return torch.rand(2, 3, *SIZE)


# Laws 1 and 2: everything is the dense network, on the image at that scale


@pytest.mark.parametrize("name", NAMES)
def test_scale_1_changes_nothing(name: str, engine: Engine, image: Tensor) -> None:
    ours = engine.make(name, config(name, 0.6, 1.0))
    assert not isinstance(ours, ScaledMethod)
    given = {k: v for k, v in config(name, 0.6, 1.0).settings.items() if k != "scale"}
    theirs = engine.make(name, METHODS[name].Config(0.6, **given))
    assert torch.equal(answer(ours, image).logits, answer(theirs, image).logits)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_a_budget_that_pays_for_all_of_it_gives_the_dense_answer_on_the_shrunk_image(
    name: str, scale: float, engine: Engine, image: Tensor
) -> None:
    method = engine.make(name, config(name, min(1.0, pixel_share(SIZE, scale) + 1e-6), scale))
    found = answer(method, image)
    with torch.no_grad():
        dense = method.dense()(image)
    assert torch.equal(found.labels, method.dense_labels(image))
    assert_close(found.logits, dense)
    assert found.trace.work.tolist() == pytest.approx([pixel_share(SIZE, scale)] * 2)
    assert found.labels.shape == (2, *SIZE) and found.trace.levels is None
    assert torch.equal(found.labels, answer(Reduced(engine.dense().dense(), scale), image).labels)


@pytest.mark.parametrize("scale", [0.75, 0.6])
@pytest.mark.parametrize("name", NAMES)
def test_it_equals_the_static_rival_at_that_scale(name: str, scale: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, image = lively(ordinary(name), torch.rand(3, *SIZE)), torch.rand(1, 3, *SIZE)
    card = Card("swiftnet_nano", tuple("abcde"), default_palette(CLASSES))
    engine = find_engine(Model("small", network, card))
    rivals = StaticRivals(fold_norms(network), (), tmp_path, 1)
    labeller = StaticContender(Choice("foveal", "f32"), scale, rivals).prepare(SIZE)
    expected = labeller.run(labeller.lay(image))
    found = answer(engine.make(name, config(name, 1.0, scale)), image).labels
    # Norms of the rival are folded into its convolutions: logits that are nearly equal may swap.
    assert float((found != expected).double().mean()) < 1e-3


# Laws 3, 4, 5: cost, budgets, batches


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("budget", [0.2, 0.3, 0.5])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_budgets_are_shares_of_the_whole_image(
    name: str, budget: float, scale: float, engine: Engine, image: Tensor
) -> None:
    method = engine.make(name, config(name, budget, scale))
    message = error_of(lambda: answer(method, image))
    if message:
        assert message.startswith(f"budget is {budget:g}, and at scale {scale:g} the cheapest plan takes")
        assert method.least_work(SIZE) > budget
        return
    trace = answer(method, image).trace
    assert float(trace.work.max()) <= min(budget, pixel_share(SIZE, scale)) + 32**2 / prod(SIZE) + 1e-9
    assert trace.scale == scale
    assert torch.equal(trace.work, answer(method, image).trace.work)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_counted_macs_are_those_of_the_trace(name: str, engine: Engine) -> None:
    image = torch.rand(1, 3, 256, 512)  # no tile hangs over the edge
    method = engine.make(name, config(name, 0.4, 0.75))
    ours = count_macs(lambda: method(image)).convolution
    dense = count_macs(lambda: engine.dense()(image)).convolution
    assert ours / dense == pytest.approx(float(answer(method, image).trace.work.mean()), abs=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_gets_the_answer_that_it_gets_alone(name: str, engine: Engine, image: Tensor) -> None:
    method = engine.make(name, config(name, 0.4, 0.75))
    together = answer(method, image)
    for n in range(2):
        alone = answer(method, image[n : n + 1])
        assert alone.trace.work[0] == together.trace.work[n]
        assert_close(alone.logits[0], together.logits[n])


# Law 9: any image


@settings(max_examples=20)
@given(source=sources())
def test_any_image_comes_back_at_its_size(source: Random) -> None:
    size, scale = (source.randint(1, 150), source.randint(1, 150)), source.uniform(0.05, 0.99)
    name = source.choice(NAMES)
    method = made_engine(ordinary_kind(name)).make(name, config(name, source.choice([0.3, 0.7, 1.0]), scale))
    shot = torch.rand(1, 3, *size)
    message = error_of(lambda: answer(method, shot))
    if message:
        assert message.startswith("budget is ") and "raise the budget" in message
        return
    found = answer(method, shot)
    assert found.labels.shape == (1, *size)
    levels = found.trace.levels
    assert levels is None or levels.shape == (1, *grid(size, 32))


def test_shrunk_images_are_padded_and_not_the_other_way_round() -> None:
    model = foveal.adapt(lively_unet(UNet(3)))
    made, shot = find_engine(describe(model)), picture(3, (203, 270))
    assert made.multiple == 4
    method = made.make("coarse_to_fine", METHODS["coarse_to_fine"].Config(1.0, scale=0.7))
    sides = shrunk_size((203, 270), 0.7)
    assert sides[0] % 4 and sides[1] % 4
    with torch.no_grad():
        small = made.dense()(shrink(shot, sides)).logits
        assert_close(method(shot).logits, torch.nn.functional.interpolate(small, (203, 270), mode="bilinear"))


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5, float("nan")])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    assert "scale is " in error_of(lambda: METHODS["segblocks"].Config(0.4, scale=scale))


# Law 12: never slower than dense on purpose


def machine(fixed_ms: float, whole: float = 100.0) -> CostModel:
    """Make a machine where tiles take fixed_ms + 100 ms * work, and the dense network 100 ms."""
    pixels = prod(SIZE)
    row = Measurement(SIZE, whole, ((0.5, fixed_ms + 50),))
    return CostModel(fixed_ms, 0.0, 100 / pixels, 0.0, whole / pixels, rows=(row,))


@pytest.mark.parametrize("name", ADAPTIVE)
def test_dense_runs_at_its_scale_where_tiles_cannot_pay(name: str, engine: Engine) -> None:
    made = config(name, 0.4, 0.8, policy="weighted_entropy")
    runner, shot = Runner(engine, name, made), torch.rand(3, *SIZE)
    assert runner(shot).reason == "" and runner(shot).scale == 0.8
    COSTS.write(runner.setup.key, machine(fixed_ms=40.0).as_record())
    slow = Runner(engine, name, made)(shot)
    assert "predicted 64" in slow.reason and "on tiles" in slow.reason
    assert (slow.cells, slow.scale) == (None, 0.8)
    assert slow.work == pytest.approx(pixel_share(SIZE, 0.8))
    assert slow.macs == pytest.approx(slow.work * slow.dense_macs, rel=0.05)
    paid = Runner(engine, name, config(name, 0.7, 0.8, policy="weighted_entropy"))(shot)
    assert "everything at scale 0.8" in paid.reason and torch.equal(paid.labels, slow.labels)
    if name in BY_TILES:
        small = Runner(engine, name, made)(torch.rand(3, 12, 12))
        assert "small for tiles" in small.reason and small.labels.shape == (12, 12)


# Law 13: masks


@pytest.mark.parametrize("name", [name for name in ADAPTIVE if METHODS[name].supports_masks])
def test_masked_places_cost_nothing(name: str, engine: Engine) -> None:
    shot = torch.rand(1, 3, 320, 448)
    wanted = torch.zeros(1, *grid((320, 448), 32), dtype=torch.bool)
    wanted[:, 3:7, 4:9] = True
    method = engine.make(name, config(name, 1.0, 0.5))
    other = shot.clone()
    other[:, :, :40], other[:, :, :, 400:] = 0.5, 0.5  # beyond what the antialiasing of a tile sees
    with torch.no_grad():
        found, changed = method.masked(shot, wanted), method.masked(other, wanted)
    # Tiles of the shrunk image are 64 px: those that the square touches are 3 x 3.
    assert float(found.trace.work) == pytest.approx(9 * 32**2 / (320 * 448))
    levels = found.trace.levels
    assert levels is not None and bool((levels[wanted] == 0).all()) and int((levels == 0).sum()) == 6 * 6
    pixels = wanted.repeat_interleave(32, 1).repeat_interleave(32, 2)
    assert torch.equal(found.labels[pixels], changed.labels[pixels])
