"""Unmodified networks of other people run on tiles."""

from __future__ import annotations

import copy
from collections.abc import Callable
from random import Random
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, symbolic_trace

from foveal.compatibility import check
from foveal.cost import count_macs
from foveal.fusion import fuse
from foveal.fusion.layers import Convolve
from foveal.geometry.plan import Plan
from foveal.methods import CoarseToFine
from foveal.ops import compose_tiles, halve
from foveal.tiles import TileTensor, WrongGeometry, run_dense, split
from strategies import random_plan
from tangled import assert_same

TILE = 32
TORCHVISION: dict[str, Callable[[Any], nn.Module]] = {
    "resnet18": lambda net: nn.Sequential(*list(net.children())[:-2]),
    "resnet50": lambda net: nn.Sequential(*list(net.children())[:-2]),
    "mobilenet_v2": lambda net: net.features,
    "mobilenet_v3_small": lambda net: net.features,
    "efficientnet_b0": lambda net: net.features,
    "regnet_y_400mf": lambda net: nn.Sequential(net.stem, net.trunk_output),
}
TIMM = ["resnet18", "mobilenetv3_small_100", "tf_efficientnet_lite0"]


@torch.no_grad()
def lively(network: nn.Module) -> nn.Module:
    """Double precision, norms with random statistics, weights that keep the signal alive."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, (2 / module.weight[0].numel()) ** 0.5)
        elif isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(value, 0.7, 1.3)
    return network.double().eval()


def maps(out: Any) -> list[Any]:
    return list(out) if isinstance(out, list | tuple) else [out]


@torch.no_grad()
def assert_runs_on_tiles(network: nn.Module, size: tuple[int, int], level: int) -> None:
    """With every tile at a level it gives what it gives on the image reduced to that level."""
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    found = maps(network(split(image, Plan.uniform(2, size, TILE, level))))
    expected = maps(network(halve(image) if level else image))
    for tiles, dense in zip(found, expected, strict=True):
        assert isinstance(tiles, TileTensor)
        map_ = compose_tiles(tiles.tiles, tiles.layout, level)
        assert map_.shape == dense.shape
        assert dense.std((0, 2, 3)).max() > 0.05
        assert_no_dead_map(dense)
        torch.testing.assert_close(map_, dense, rtol=0, atol=1e-11 * dense.abs().max().item())


def assert_no_dead_map(x: Tensor) -> None:
    assert x.isfinite().all()
    assert (x != 0).double().mean() > 0.2


@pytest.fixture(params=TORCHVISION, scope="module")
def known(torchvision: ModuleType, request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    network = getattr(torchvision.models, request.param)(weights=None)
    return lively(TORCHVISION[request.param](network))


@pytest.mark.parametrize(("size", "level"), [((64, 96), 0), ((75, 67), 0), ((64, 128), 1)])
def test_torchvision_networks_run_on_tiles(known: nn.Module, size: tuple[int, int], level: int) -> None:
    assert_runs_on_tiles(known, size, level)


def test_a_traced_network_runs_on_tiles(torchvision: ModuleType) -> None:
    network = torchvision.models.mobilenet_v3_small(weights=None).features
    traced = symbolic_trace(lively(network))
    assert isinstance(traced, GraphModule)
    assert_runs_on_tiles(traced, (64, 70), 0)


@torch.no_grad()
def assert_fuses(network: nn.Module) -> None:
    """On images and on tiles of two levels it gives the same answer, and no convolution is lost."""
    network = copy.deepcopy(network).float()
    fast, image = fuse(network), torch.rand(2, 3, 75, 67)
    plan = random_plan(Random(1), 2, (75, 67), TILE, 1)
    assert any(isinstance(module, Convolve) for module in fast.modules())
    for found, expected in zip(maps(fast(image)), maps(network(image)), strict=True):
        assert_same(found, expected)
    for found, expected in zip(
        maps(fast(split(image, plan))), maps(network(split(image, plan))), strict=True
    ):
        assert_same(found.dense(), expected.dense())
    assert count_macs(lambda: fast(image)).convolution == count_macs(lambda: network(image)).convolution


@pytest.mark.slow
def test_torchvision_networks_can_be_fused(known: nn.Module) -> None:
    assert_fuses(known)


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv3_small_100",
        *(pytest.param(name, marks=pytest.mark.slow) for name in [*TIMM, "nf_resnet26"]),
    ],
)
def test_timm_networks_can_be_fused(timm: ModuleType, name: str) -> None:
    """The last one has convolutions that standardise their weights; they stay."""
    network = timm.create_model(name, features_only=True, pretrained=False)
    if name == "nf_resnet26":
        network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), network)
    assert_fuses(lively(network))


@pytest.mark.parametrize(("size", "level"), [((64, 96), 0), ((75, 67), 0), ((64, 128), 1)])
@pytest.mark.parametrize("name", TIMM)
def test_timm_networks_run_on_tiles(timm: ModuleType, name: str, size: tuple[int, int], level: int) -> None:
    network = timm.create_model(name, features_only=True, pretrained=False)
    assert_runs_on_tiles(lively(network), size, level)


@pytest.mark.parametrize(("size", "level"), [((64, 96), 0), ((64, 128), 1)])
@pytest.mark.parametrize("name", ["convnext_atto", "convnextv2_atto.fcmae"])
def test_convnext_runs_on_tiles(timm: ModuleType, name: str, size: tuple[int, int], level: int) -> None:
    """Channels last, norms over channels; the second one has a norm over the image, which runs dense."""
    network = lively(timm.create_model(name, features_only=True, pretrained=False))
    for path, module in list(network.named_modules()):
        if type(module).__name__ == "GlobalResponseNormMlp":
            run_dense(network.get_submodule(path))
    assert_runs_on_tiles(network, size, level)


def test_patches_that_do_not_fill_an_image_are_refused_with_the_sides_that_they_fill(
    timm: ModuleType,
) -> None:
    network = lively(timm.create_model("convnext_atto", features_only=True, pretrained=False))
    with pytest.raises(WrongGeometry, match="stride, rounded up; pad the image to multiples of 4 px"):
        network(split(torch.randn(1, 3, 75, 67, dtype=torch.float64), Plan.uniform(1, (75, 67), TILE)))


@pytest.fixture(scope="module")
def smp(timm: ModuleType) -> ModuleType:
    return pytest.importorskip("segmentation_models_pytorch")


@pytest.mark.parametrize(
    ("decoder", "encoder", "dense"),
    [
        ("unet", "tu-convnext_atto", 0),
        pytest.param("fpn", "tu-convnext_atto", 0, marks=pytest.mark.slow),
        ("fpn", "mobilenet_v2", 0),
        pytest.param("fpn", "timm-regnety_002", 0, marks=pytest.mark.slow),
        ("unet", "mit_b0", 8),
        pytest.param("unet", "resnet18", 0, marks=pytest.mark.slow),
        ("unetplusplus", "mobilenet_v2", 0),
        ("deeplabv3plus", "resnet18", 0),
        ("linknet", "mobilenet_v2", 0),
        ("pspnet", "resnet18", 0),
        ("segformer", "resnet18", 0),
        ("upernet", "resnet18", 0),
    ],
)
def test_decoders_run_on_tiles(smp: ModuleType, decoder: str, encoder: str, dense: int) -> None:
    """Twelve of the networks of `make networks`: they equal their dense selves at every level, and run."""
    network = smp.create_model(decoder, encoder, encoder_weights=None, classes=5).eval()
    size = (256, 256) if decoder == "pspnet" else (128, 192)  # images of one finest level
    report = check(network, size)
    assert report.dense_modules is not None and len(report.dense_modules) == dense
    assert report.equal and len(report.mixed) >= 2
    assert report.macs is not None and report.macs < 0.5, "little runs dense"
    for name in report.whole_map_modules:
        run_dense(network.get_submodule(name))
    for sides in (size, (192, 128)):
        with torch.no_grad():
            out = CoarseToFine(network, 0.6, TILE, 1)(torch.rand(1, 3, *sides))
        assert out.labels.shape == (1, *sides) and out.logits.isfinite().all()


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
def test_decoders_take_sizes_that_are_no_multiple_of_their_stride(smp: ModuleType, decoder: str) -> None:
    network = smp.create_model(decoder, "resnet18", encoder_weights=None, classes=5)
    network.requires_divisible_input_shape = False
    report = check(network, (132, 164) if decoder == "unet" else (160, 224))
    assert report.equal
    assert report.findings == ()


def test_training_a_bottleneck_on_a_ragged_image_keeps_gradients_finite(torchvision: ModuleType) -> None:
    network = torchvision.models.resnet50(weights=None)
    layers = nn.Sequential(*list(network.children())[:5]).eval()
    for parameter in layers.parameters():
        if parameter.ndim == 4:
            nn.init.uniform_(parameter, 0.05, 0.2)
    image = torch.randn(1, 3, 41, 53)
    layers(split(image, Plan.uniform(1, (41, 53), TILE))).dense().mean().backward()
    assert all(p.grad.isfinite().all() for p in layers.parameters())
