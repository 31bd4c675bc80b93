from __future__ import annotations

import math
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from foveal.models.efficientnet import VARIANTS, EfficientNetLiteEncoder
from foveal.models.mobilenet import MobileNetV2Encoder, SamePaddedConv2d, read_quantised_mobilenet
from foveal.models.nano import NanoEncoder
from foveal.models.weights import load_encoder

BUILDERS = {
    "mobilenet": MobileNetV2Encoder,
    "mobilenet_same": lambda: MobileNetV2Encoder(width=0.5, same_padding=True),
    "lite1": EfficientNetLiteEncoder,
    "lite0_same": lambda: EfficientNetLiteEncoder("lite0", same_padding=True),
    "nano": NanoEncoder,
}
LAYERS = {torch.conv2d, F.batch_norm, F.relu, F.hardtanh, F.pad, Tensor.add}
"""What a tile engine with one rule per function has to know; ReLU6 is a hardtanh."""

QUESTIONS = {Tensor.dim, Tensor.shape.__get__}

QUANTISED = Path(os.environ.get("FOVEAL_WEIGHTS", "")) / "mobilenet_v2_1.0_imagenet_int8_features.pt"


@pytest.fixture(params=BUILDERS, scope="module")
def encoder(request: pytest.FixtureRequest) -> nn.Module:
    return BUILDERS[request.param]().eval()


@pytest.mark.parametrize("size", [(64, 96), (37, 91), (65, 33), (1, 1)])
def test_maps_have_the_stated_channels_and_strides(encoder: nn.Module, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        maps = encoder(torch.randn(2, 3, *size))
    assert encoder.strides == (4, 8, 16, 32)
    sides = [tuple(math.ceil(side / stride) for side in size) for stride in encoder.strides]
    assert [x.shape[1] for x in maps] == list(encoder.channels)
    assert [tuple(x.shape[2:]) for x in maps] == sides


@pytest.mark.parametrize(
    ("name", "channels", "gmacs"),
    [
        ("mobilenet", (24, 32, 96, 320), 11.68),
        ("lite1", (24, 40, 112, 320), 20.11),
        ("nano", (16, 32, 64, 112), 2.31),
    ],
)
def test_channels_and_macs_at_1024x2048(name: str, channels: tuple[int, ...], gmacs: float) -> None:
    encoder = BUILDERS[name]()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        encoder(torch.zeros(1, 3, 64, 128))
    assert encoder.channels == channels
    assert counter.get_total_flops() / 2e9 * 16**2 == pytest.approx(gmacs, abs=0.005)


def test_only_functions_that_tiles_can_run(encoder: nn.Module) -> None:
    called = set()

    class Record(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            called.add(function)
            return function(*args, **(kwargs or {}))

    image = torch.randn(1, 3, 32, 32)
    with Record(), torch.inference_mode():
        encoder(image)
    assert called <= LAYERS | QUESTIONS
    assert not any(getattr(module, "inplace", False) for module in encoder.modules())


def test_gradients_reach_every_parameter(encoder: nn.Module) -> None:
    sum(x.square().sum() for x in encoder(torch.randn(1, 3, 64, 64))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("kernel", [3, 5])
def test_same_padding_is_that_of_tensorflow_and_independent_of_the_image_size(kernel: int) -> None:
    convolution = SamePaddedConv2d(2, 3, kernel, 2, bias=False)
    x = torch.randn(1, 2, 16, 16)
    before, after = (kernel - 2) // 2, kernel // 2
    expected = F.conv2d(F.pad(x, (before, after, before, after)), convolution.weight, stride=2)
    torch.testing.assert_close(convolution(x), expected)
    torch.testing.assert_close(convolution(x[:, :, :15, :15])[:, :, :6, :6], expected[:, :, :6, :6])
    assert convolution(x[:, :, :15, :15]).shape == expected.shape


def test_unknown_variant() -> None:
    with pytest.raises(ValueError, match="variant is 'lite9'; allowed are lite0, lite1"):
        EfficientNetLiteEncoder("lite9")


@pytest.mark.parametrize("width", [1.0, 0.5, 1.4])
def test_mobilenet_equals_torchvision(torchvision: ModuleType, width: float) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.mobilenet_v2(width_mult=width)
    theirs = _randomise(theirs.features[:18].to_empty(device="cpu"))
    ours = MobileNetV2Encoder(width).eval()
    ours.features.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 65, 96)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), [theirs[: index + 1](x) for index in (3, 6, 13, 17)])


@pytest.mark.parametrize(("prefix", "same_padding"), [("", False), ("tf_", True)])
def test_efficientnet_equals_timm(timm: ModuleType, prefix: str, same_padding: bool) -> None:
    options = {"features_only": True, "out_indices": (1, 2, 3, 4), "bn_eps": 1e-3}
    theirs = _randomise(timm.create_model(f"{prefix}efficientnet_lite1", **options))
    ours = EfficientNetLiteEncoder("lite1", same_padding).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("variant", VARIANTS)
def test_efficientnet_has_the_parameters_of_timm(timm: ModuleType, variant: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(f"tf_efficientnet_{variant}", features_only=True)
        ours = EfficientNetLiteEncoder(variant)
    shapes, expected = ({k: v.shape for k, v in net.state_dict().items()} for net in (ours, theirs))
    assert shapes == expected
    norms = [layer for layer in ours.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_read_quantised() -> None:
    weight = torch.tensor([[[[1]]], [[[-2]]]], dtype=torch.int8)
    state = {"a.weight.q": weight, "a.weight.scale": torch.tensor([0.5, 2.0]), "a.bias": torch.ones(2)}
    expected = {"a.bias": torch.ones(2), "a.weight": torch.tensor([0.5, -4.0]).view(2, 1, 1, 1)}
    torch.testing.assert_close(read_quantised_mobilenet(state), expected)


def test_read_quantised_without_scale() -> None:
    with pytest.raises(ValueError, match=r"'a.weight.q' needs one scale .* \(2\), given none"):
        read_quantised_mobilenet({"a.weight.q": torch.zeros(2, 1, 1, 1, dtype=torch.int8)})


@pytest.mark.skipif(not QUANTISED.is_file(), reason="set FOVEAL_WEIGHTS to the folder of weights")
def test_quantised_imagenet_weights_give_lively_features() -> None:
    encoder = MobileNetV2Encoder(same_padding=True).eval()
    assert load_encoder(encoder, QUANTISED) == []
    with torch.inference_mode():
        maps = encoder(_picture())
    for x in maps:
        assert x.isfinite().all()
        assert x.abs().max() < 100
        assert x.std((0, 2, 3)).min() > 0.2, "a dead channel"


def _picture() -> Tensor:
    """Blobs of several scales, in -1..1."""
    generator = torch.Generator().manual_seed(0)
    scales = [torch.randn(1, 3, side, side, generator=generator) for side in (4, 16, 64)]
    return sum(F.interpolate(x, size=(256, 256), mode="bilinear") for x in scales).tanh()


@torch.no_grad()
def _randomise(module: nn.Module) -> nn.Module:
    """Give norms random statistics, and convolutions weights that keep the signal alive."""
    generator = torch.Generator().manual_seed(0)
    for value in module.state_dict().values():
        if value.dim() == 4:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        elif value.is_floating_point():
            value.uniform_(0.7, 1.3, generator=generator)
    return module.eval()
