"""Weights of timm and torchvision."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from encoders import assert_same_function, maps
from foveal.models.efficientnet import EfficientNetLiteEncoder
from foveal.models.mobilenet import MobileNetV2Encoder
from foveal.models.resnet import ResNetEncoder
from foveal.models.weights import WeightsError, load_encoder
from samples import shaken

TIMM: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "resnet18": ("resnet18", lambda: ResNetEncoder(18)),
    "resnet50": ("resnet50", lambda: ResNetEncoder(50)),
    "mobilenetv2": ("mobilenetv2_100", MobileNetV2Encoder),
    "lite1": ("efficientnet_lite1", EfficientNetLiteEncoder),
    "lite1_same": ("tf_efficientnet_lite1", lambda: EfficientNetLiteEncoder("lite1", same_padding=True)),
}


def offline(monkeypatch: pytest.MonkeyPatch, timm: ModuleType, **options: Any) -> list[nn.Module]:
    """Let `timm.create_model` make random models instead of downloading; return those it made."""
    create, made = timm.create_model, []

    def create_model(name: str, pretrained: bool) -> nn.Module:
        assert pretrained
        made.append(shaken(create(name, **options)).eval())
        return made[-1]

    monkeypatch.setattr(timm, "create_model", create_model)
    return made


@pytest.mark.parametrize("kind", TIMM)
@pytest.mark.parametrize("form", ["timm", "file"])
def test_encoders_equal_the_features_of_timm(
    kind: str, form: str, timm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, build = TIMM[kind]
    options = {"bn_eps": 1e-3} if "lite" in kind else {}
    features = timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4), **options).eval()
    made = offline(monkeypatch, timm, **options)
    encoder, source = build().eval(), f"timm:{name}"
    if form == "file":
        source = str(tmp_path / "weights.pth")
        torch.save(
            {f"module.{key}": value for key, value in timm.create_model(name, True).state_dict().items()},
            source,
        )
    assert load_encoder(encoder, source) == []
    features.load_state_dict({key: made[0].state_dict()[key] for key in features.state_dict()})
    assert_same_function(
        encoder, features, size=(64, 96)
    )  # at odd sides SAME padding is ours, see mobilenet.py


def test_weights_for_other_normalisation_are_adapted(
    timm: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = offline(monkeypatch, timm, bn_eps=1e-3)
    encoder, own = (
        EfficientNetLiteEncoder("lite1", same_padding=True).eval(),
        EfficientNetLiteEncoder("lite1", True),
    )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    load_encoder(encoder, "timm:tf_efficientnet_lite1", (mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1)))
    own.load_state_dict({key: made[0].state_dict()[key] for key in own.state_dict()})
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found = encoder.bn1(encoder.conv_stem((image - mean.view(3, 1, 1)) / std.view(3, 1, 1)))
        expected = own.eval().bn1(own.conv_stem((image - 0.5) / 0.5))
    torch.testing.assert_close(found[:, :, :-1, :-1], expected[:, :, :-1, :-1], rtol=1e-4, atol=1e-4)


def test_another_padding_is_said(timm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, timm)
    with pytest.warns(
        UserWarning, match="mobilenetv2_100 pads symmetrically and the encoder as TensorFlow does"
    ):
        load_encoder(MobileNetV2Encoder(same_padding=True), "timm:mobilenetv2_100")


def test_names_that_timm_does_not_know_are_refused(timm: ModuleType) -> None:
    for name in ("resnet81", "efficientnet_lite1"):  # the second one has no pretrained weights
        with pytest.raises(
            WeightsError, match=rf"^timm:{name}: timm has no such pretrained weights, or cannot"
        ):
            load_encoder(ResNetEncoder(18), f"timm:{name}")


def test_without_network_a_file_is_recommended(timm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, pretrained: bool) -> nn.Module:
        raise OSError("We couldn't connect to the hub\nand more")

    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(WeightsError, match=r"couldn't connect to the hub\); give a name .* give the file$"):
        load_encoder(ResNetEncoder(18), "timm:resnet18")


def test_without_timm_the_extra_is_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(WeightsError, match=r"timm cannot be imported .* pip install 'foveal\[timm\]'"):
        load_encoder(ResNetEncoder(18), "timm:resnet18")


@pytest.mark.parametrize("depth", [18, 50])
def test_weights_of_torchvision_fit(depth: int, torchvision: ModuleType, tmp_path: Path) -> None:
    theirs = shaken(getattr(torchvision.models, f"resnet{depth}")()).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    encoder = ResNetEncoder(depth).eval()
    assert load_encoder(encoder, tmp_path / "weights.pth") == []
    image = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(x))))
    torch.testing.assert_close(maps(encoder, image)[-1], expected)
