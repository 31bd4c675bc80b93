from __future__ import annotations

import sys
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import foveal
from foreign import Strided, UNet, lively, picture
from foveal.adaptive.engine import describe_model
from foveal.adaptive.preprocess import as_preprocess, find_preprocess
from foveal.fusion import fuse
from foveal.fusion.layers import Convolve

MEAN, STD = (0.4, 0.5, 0.6), (0.3, 0.2, 0.1)


@pytest.mark.parametrize("pad", ["zero", "edge"])
@pytest.mark.parametrize(("scale", "order"), [(1.0, "rgb"), (255.0, "bgr")])
def test_the_network_sees_what_it_was_trained_on(pad: str, scale: float, order: str) -> None:
    net, image = lively(UNet()), picture()
    mean, std = (tuple(scale * value for value in values) for values in (MEAN, STD))
    pre = foveal.Preprocess(mean, std, scale, order, 32, pad)  # type: ignore[arg-type]
    model = foveal.adapt(net, preprocess=pre)
    out = model(image, budget=1.0)
    given = image.flip(1) if order == "bgr" else image
    parts = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    shift, divisor = parts
    given = (given * scale - shift) / divisor
    mode = "constant" if pad == "zero" else "replicate"
    with torch.no_grad():
        expected = net(F.pad(given, (0, -270 % 32, 0, -203 % 32), mode=mode))[:, :, :203, :270]
        for_commands = describe_model(model.prepared, model.spec).network(image)
    torch.testing.assert_close(out.logits, expected, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(for_commands, expected, atol=2e-4, rtol=1e-4)


def test_bytes_are_floats_in_0_to_1() -> None:
    model = foveal.adapt(lively(Strided()), preprocess=foveal.Preprocess(MEAN, STD))
    image = (picture() * 255).round()
    bytewise = model(image.to(torch.uint8), budget=0.4)
    assert torch.equal(bytewise.logits, model(image / 255, budget=0.4).logits)


def test_values_of_no_image_are_refused() -> None:
    model = foveal.adapt(lively(Strided()), preprocess=foveal.Preprocess(MEAN, STD))
    with pytest.raises(ValueError, match=r"images reach .*; give floats in 0..1, or bytes"):
        model(picture() * 255, budget=0.4)
    with pytest.raises(ValueError, match=r"images are torch.int64; give bytes \(uint8\)"):
        model((picture() * 255).long(), budget=0.4)
    with pytest.raises(ValueError, match="NaN or infinity"):
        model(picture() * float("nan"), budget=0.4)
    plain = foveal.adapt(lively(Strided()))  # whoever normalises outside may give any numbers
    assert plain(picture() * 6 - 3, budget=0.4).labels.shape == (1, 203, 270)


def test_normalisation_is_folded_into_the_first_convolution() -> None:
    model = foveal.adapt(lively(Strided()), preprocess=foveal.Preprocess(MEAN, STD))
    fused = fuse(model.prepared)
    first = next(module for module in fused.modules() if isinstance(module, Convolve))
    assert first.prologue_scale is not None
    assert not [node for node in fused.graph.nodes if node.op == "get_attr"]  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"mean": ()}, "mean is .*give one finite number per channel"),
        ({"std": (0.1, 0.0, 0.2)}, "std is .*above 0"),
        ({"scale": 127.5}, "scale is 127.5; give 1.0 .* or 255.0"),
        ({"channel_order": "grb"}, 'channel_order is "grb"; give "rgb" or "bgr"'),
        ({"pad": "mirror"}, 'pad is "mirror"; give "edge" or "zero"'),
        ({"multiple": 0}, "multiple is 0; give 1 px or more"),
    ],
)
def test_values_are_checked(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        foveal.Preprocess(**values)


def test_blue_first_needs_three_channels() -> None:
    with pytest.raises(ValueError, match='channel_order is "bgr" and the network takes 1 channels'):
        foveal.adapt(lively(Strided(1)), preprocess=foveal.Preprocess(channel_order="bgr"))


def test_timm_says_it() -> None:
    net = lively(Strided())
    net.body.default_cfg = {"mean": MEAN, "std": STD, "architecture": "x"}  # type: ignore[union-attr, assignment]
    assert find_preprocess(net) == foveal.Preprocess(MEAN, STD)
    assert foveal.adapt(net).spec.preprocess == foveal.Preprocess(MEAN, STD)


def test_segmentation_models_pytorch_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def params(name: str, pretrained: str) -> dict[str, Any]:
        asked.append((name, pretrained))
        return {"mean": list(MEAN), "std": list(STD), "input_range": [0, 255], "input_space": "BGR"}

    module = ModuleType("segmentation_models_pytorch.encoders")
    module.get_preprocessing_params = params  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", ModuleType("segmentation_models_pytorch"))
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch.encoders", module)
    net = Strided()
    net._hub_mixin_config = {"encoder_name": "resnet18", "encoder_weights": "imagenet"}  # type: ignore[assignment]
    assert find_preprocess(net) == foveal.Preprocess(MEAN, STD, 255.0, "bgr")
    assert asked == [("resnet18", "imagenet")]

    def unknown(name: str, pretrained: str) -> dict[str, Any]:
        raise OSError("no connection")

    module.get_preprocessing_params = unknown  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"weights imagenet of resnet18 \(no connection\); give preprocess="):
        find_preprocess(net)
    assert foveal.adapt(lively(net), preprocess=foveal.Preprocess()).spec.preprocess.is_identity
    net._hub_mixin_config = {"encoder_name": "resnet18", "encoder_weights": None}  # type: ignore[assignment]
    assert find_preprocess(net).is_identity


def test_weights_of_torchvision_and_image_processors_say_it() -> None:
    transforms = partial(SimpleNamespace, mean=list(MEAN), std=list(STD))
    assert as_preprocess(SimpleNamespace(transforms=transforms)) == foveal.Preprocess(MEAN, STD)
    processor = SimpleNamespace(image_mean=list(MEAN), image_std=list(STD))
    assert as_preprocess(processor) == foveal.Preprocess(MEAN, STD)
    with pytest.raises(TypeError, match=r"preprocess is a str; give foveal.Preprocess"):
        as_preprocess("imagenet")


def test_nothing_is_done_where_nothing_is_said() -> None:
    assert find_preprocess(Strided()).is_identity
