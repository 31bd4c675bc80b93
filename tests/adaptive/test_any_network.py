from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import foveal
from foreign import Attending, Context, Strided, UNet, in_dict, in_object, in_tuple, lively, picture

COLOURS = foveal.Preprocess((0.4, 0.5, 0.6), (0.3, 0.2, 0.1))


def normalised(image: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (COLOURS.mean, COLOURS.std))
    return (image - mean) / std


@pytest.mark.parametrize("network", [UNet(), Strided(), Attending()], ids=lambda n: type(n).__name__)
def test_a_budget_of_one_is_the_dense_network(network: nn.Module) -> None:
    net, image = lively(network), picture(count=2)
    model = foveal.adapt(net, preprocess=COLOURS)
    out = model(image, budget=1.0)
    multiple = model.spec.shape.multiple  # zeros go around the image after normalisation
    with torch.no_grad():
        expected = net(F.pad(normalised(image), (0, -270 % multiple, 0, -203 % multiple)))
    factor = model.spec.shape.stride
    if factor > 1:
        expected = F.interpolate(expected, scale_factor=factor, mode="bilinear")
    torch.testing.assert_close(out.logits, expected[:, :, :203, :270], atol=1e-4, rtol=1e-4)
    assert out.labels.shape == (2, 203, 270)
    assert out.labels.dtype == torch.uint8
    assert out.reason


@pytest.mark.parametrize("network", [UNet(), Strided(), Attending()], ids=lambda n: type(n).__name__)
def test_all_tiles_at_level_0_give_the_dense_answer(network: nn.Module) -> None:
    model, image = foveal.adapt(lively(network), preprocess=COLOURS), picture()
    dense = model(image, budget=1.0)
    every = torch.ones(1, 203, 270, dtype=torch.bool)
    tiled = model(image, budget=1.0, mask=every)
    torch.testing.assert_close(tiled.logits, dense.logits, atol=1e-4, rtol=1e-4)
    assert float(tiled.work[0]) >= 1


def test_less_budget_costs_less_and_is_kept() -> None:
    model, image = foveal.adapt(lively(UNet())), picture(size=(384, 512), count=2)
    found = [model(image, budget=budget) for budget in (0.2, 0.4, 0.7, 1.0)]
    assert [out.macs for out in found] == sorted(out.macs for out in found)
    tile = 32 * 32 / (384 * 512)
    assert all(float(out.work.max()) <= 0.4 + tile for out in found[:2])
    assert found[1].levels.shape == (2, 12, 16)
    assert found[1].plan is not None


@pytest.mark.parametrize(("wrap", "path"), [(in_dict, ("out",)), (in_tuple, (1,)), (in_object, (".logits",))])
def test_logits_are_found_in_what_a_network_returns(wrap: object, path: tuple[object, ...]) -> None:
    plain, wrapped = lively(Strided()), lively(Strided(wrap=wrap))  # type: ignore[arg-type]
    model, image = foveal.adapt(wrapped), picture()
    assert model.spec.shape.path == path
    torch.testing.assert_close(
        model(image, budget=0.4).logits, foveal.adapt(plain)(image, budget=0.4).logits, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_any_number_of_channels(channels: int) -> None:
    net, image = lively(Strided(channels)), picture(channels)
    model = foveal.adapt(net)
    assert model.spec.shape.in_channels == channels and model.engine.name == "program f32"
    assert model(image, budget=0.4).labels.shape == (1, 203, 270)
    with torch.no_grad():
        dense = F.interpolate(net(image), scale_factor=4, mode="bilinear")[:, :, :203, :270]
    torch.testing.assert_close(model(image, budget=1.0).logits, dense, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=rf"give a tensor \[N, {channels}, H, W\]"):
        model(picture(channels + 1), budget=0.4)


def test_one_logit_is_the_probability_of_class_1() -> None:
    net, image = lively(UNet(3, 1)), picture(count=2)
    with torch.no_grad():
        net.head.bias -= net(image[:, :, :200, :268]).median()  # type: ignore[union-attr, operator]
    model = foveal.adapt(net, preprocess=foveal.Preprocess(multiple=4))
    out = model(image, budget=1.0)
    with torch.no_grad():
        probability = net(F.pad(image, (0, -270 % 4, 0, -203 % 4)))[:, 0, :203, :270].sigmoid()
    clear = (probability - 0.5).abs() > 1e-4
    assert 0.02 < float((probability > 0.5).float().mean()) < 0.98
    assert torch.equal(out.labels.bool()[clear], (probability > 0.5)[clear])
    torch.testing.assert_close(out.confidence, torch.maximum(probability, 1 - probability), atol=1e-4, rtol=0)
    assert (
        model(picture(size=(384, 512)), budget=0.4).levels.unique().numel() > 1
    )  # the score is not constant
    assert model.spec.classes == ("class 0", "class 1")


def test_what_is_found_by_running_it_once() -> None:
    shape = foveal.adapt(lively(UNet())).spec.shape
    assert (shape.outputs, shape.stride, shape.coarsest_stride, shape.multiple) == (4, 1, 4, 4)
    shape = foveal.adapt(lively(Strided())).spec.shape
    assert (shape.stride, shape.coarsest_stride, shape.multiple, shape.align_corners) == (4, 4, 1, False)


def test_align_corners_is_noticed() -> None:
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    from foveal.adaptive.probe import find_shape

    assert find_shape(nn.Sequential(nn.Conv2d(3, 2, 3, 2, 1), up)).align_corners


def test_dense_modules_are_found_and_may_be_given() -> None:
    assert foveal.adapt(lively(Attending())).spec.dense_modules == ("context",)
    assert foveal.adapt(lively(Attending()), dense_modules=["context"]).spec.dense_modules == ("context",)
    with pytest.raises(ValueError, match="no module of the network named 'contxt'; did you mean 'context'"):
        foveal.adapt(lively(Attending()), dense_modules=["contxt"])


def test_a_network_is_compiled_or_the_engine_says_why() -> None:
    assert foveal.adapt(lively(UNet())).engine.program is not None
    engine = foveal.adapt(lively(Attending())).engine
    assert engine.program is None
    assert engine.why_not
    assert "has no compiled program" in engine.warning


def test_the_given_network_is_left_as_it_is() -> None:
    net = lively(Attending()).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model = foveal.adapt(net)
    assert net.training
    assert "forward" not in vars(net.context)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not model.training


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Odd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 3:, 3:]


class Rolled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.fft.ifft2(torch.fft.fft2(x)).real)


class Squeezed(nn.Sequential):
    """A norm that could see the whole map, then something in its own forward that cannot be mended."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, 1, 1), Context(), nn.Conv2d(4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(super().forward(x)).real


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (
            Squeezed(),
            r"Squeezed cannot run on tiles: .* in its own forward \(Squeezed\) has no rule; move the call",
        ),
        (Flat(), r"returns a tensor \[1, 3\]; give one that returns logits"),
        (Odd(), "logits of 253x253 for an image of 256x256"),
        (Rolled(), "Rolled cannot run on tiles: .*fft.*forward"),
        (nn.Linear(3, 3), r"fails on an image \[1, 3, 128, 128\]"),
    ],
)
def test_what_cannot_be_adapted_is_refused_in_one_sentence(network: nn.Module, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        foveal.adapt(network)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (SimpleNamespace(), r"network is a SimpleNamespace; give a torch.nn.Module"),
        (Strided, r"network is the class Strided; give an instance, such as Strided\(\) with its trained"),
        ("camvid_rn18", r"network is the str 'camvid_rn18'; give .* foveal.load_model\(name\).network, or"),
        (Path("run"), r"network is the \w*Path .*foveal.AdaptiveModel.from_pretrained"),
        (
            Strided().state_dict(),
            r"network is a OrderedDict, perhaps of weights; .*load_state_dict\(weights\)",
        ),
        (SimpleNamespace(network=Strided()), "network is a SimpleNamespace; give its network, a torch"),
    ],
    ids=["object", "class", "name", "path", "weights", "model"],
)
def test_what_is_no_network_is_refused(network: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        foveal.adapt(network)


def test_an_adaptive_model_is_no_network() -> None:
    model = foveal.adapt(lively(Strided()), compile_now=False)
    with pytest.raises(TypeError, match="an AdaptiveModel, which adapts already; give its network"):
        foveal.adapt(model)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"method": "segblock"}, "did you mean 'segblocks'"),
        ({"precision": "int8"}, r'model.calibrate\(images, precision="int8"\)'),
        ({"precision": "f16"}, "precision is f16; give f32 or bf16"),
        ({"coarse_level": -1}, "coarse_level is -1; give a level from 0, full resolution, to 7"),
        ({"tile": 30}, "tile is 30 px and the network has stride 4"),
        ({"classes": ["weed"]}, "classes has 1 entries and the network 4 classes"),
        ({"palette": [(0, 0, 0)] * 3}, "palette has 3 entries"),
        ({"in_channels": 4}, r"fails on an image \[1, 4, 128, 128\]"),
        ({"preprocess": foveal.Preprocess((0.5,) * 4)}, "mean has 4 numbers and the network takes 3"),
        ({"source": "nowhere"}, 'source is "nowhere"; give "module:function"'),
        ({"source": "a:b", "arguments": {"x": object()}}, "cannot be written as JSON"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        foveal.adapt(lively(Strided()), **arguments)  # type: ignore[arg-type]


def test_networks_of_queries_are_refused() -> None:
    """Their masks have four dimensions, and are no classes of pixels."""

    class MaskForUniversalSegmentation(Strided):
        config = SimpleNamespace(to_dict=dict)

    MaskForUniversalSegmentation.__module__ = "transformers.models.mask"
    with pytest.raises(ValueError, match="gives a mask and a class for every query, and no logits"):
        foveal.adapt(lively(MaskForUniversalSegmentation()))
