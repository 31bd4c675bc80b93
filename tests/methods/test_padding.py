"""Methods of networks that take only some sides: any image is padded before and cropped after."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import foveal
from conformance import RUN_ANY
from foreign import UNet, lively, picture
from foveal.adaptive.opening import describe
from foveal.calibration.engine import find_engine
from foveal.geometry.plan import grid
from foveal.methods import METHODS
from foveal.methods.padding import PaddedMethod
from samples import error_of


@pytest.fixture(scope="module", params=["program", "modules"])
def model(request: pytest.FixtureRequest) -> foveal.AdaptiveModel:
    compiled = request.param == "program"
    network = lively(UNet(3) if compiled else UNet(4))
    if not compiled:
        network.last[2] = nn.Mish()  # which no step has
    return foveal.adapt(network)


@pytest.mark.parametrize("name", RUN_ANY)
@pytest.mark.parametrize("size", [(203, 270), (150, 161), (64, 64)])
def test_any_image_comes_back_at_its_size(
    model: foveal.AdaptiveModel, name: str, size: tuple[int, int]
) -> None:
    engine = find_engine(describe(model))
    assert engine.multiple == 4 and (engine.program is None) == (engine.channels == 4)
    method = engine.make(name, METHODS[name].Config(0.8))
    assert isinstance(method, PaddedMethod)
    image = picture(engine.channels, size)
    found = method(image)
    assert found.labels.shape == (1, *size) and found.labels.dtype == torch.uint8
    if METHODS[name].decides_for != "point":  # whose answers have the stride of the map that they refine
        assert found.logits.shape == (1, 4, *size)
    assert torch.equal(method.labels(image), found.labels)
    assert found.trace.work[0] <= 1
    message = error_of(lambda: method(image[:, :2]))
    assert message.startswith("images are [1, 2,")


def test_the_answer_is_that_of_the_adaptive_model(model: foveal.AdaptiveModel) -> None:
    engine, image = find_engine(describe(model)), picture(model.spec.shape.in_channels)
    with torch.no_grad():
        method = engine.make("coarse_to_fine", METHODS["coarse_to_fine"].Config(0.4))
        assert torch.equal(method(image).labels, model(image, budget=0.4).labels)
        dense = engine.dense()
        assert torch.equal(dense(image).labels, model(image, budget=1.0).labels)
        torch.testing.assert_close(dense.dense()(image), dense(image).logits)


def test_cells_of_a_mask_are_those_of_the_image(model: foveal.AdaptiveModel) -> None:
    engine, size = find_engine(describe(model)), (203, 270)
    method = engine.make("segblocks", METHODS["segblocks"].Config(1.0))
    wanted = torch.zeros(1, *grid(size, 32), dtype=torch.bool)
    wanted[:, 1:3, 2:4] = True
    with torch.no_grad():
        found = method.masked(picture(engine.channels, size), wanted)
    levels = found.trace.levels
    assert levels is not None and torch.equal(levels >= 0, wanted)
