"""Fused networks answer as the networks that they were made from."""

from __future__ import annotations

from importlib import import_module
from random import Random

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.cost import count_macs
from foveal.fusion import faster, fuse
from foveal.kernels import build as native
from foveal.models import MODELS, create_model
from foveal.ops.convolve.autotune import algorithms
from foveal.tiles import run_dense, split
from fused_cases import TILE, two_passes
from networks import RandomNetwork
from samples import nano, shaken
from strategies import random_plan, random_size, sources
from tangled import NEAR, TangledNetwork, assert_same, image_for

LONG = {"swiftnet_rn18", "swiftnet_rn50", "swiftnet_efflite1", "lattice16", "lattice33"}

TABLE = [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in MODELS]


@pytest.mark.parametrize("kind", NEAR, ids=str)
@pytest.mark.parametrize("name", TABLE)
@torch.no_grad()
def test_networks_of_the_table_give_the_same_answer(name: str, kind: torch.dtype) -> None:
    network = shaken(create_model(name, 4)).eval().to(kind)
    fast = fuse(network)
    assert not [m for m in fast.modules() if isinstance(m, nn.BatchNorm2d) and not in_context(fast, m)]
    image, source = torch.rand(2, 3, 65, 97, dtype=kind), Random(0)
    assert_same(fast(image), network(image))
    for module in (fast, network):
        for name in network.dense_modules:
            run_dense(module.get_submodule(name))
    plans = random_plan(source, 2, (65, 97), 32, 1), random_plan(source, 2, (65, 97), 32, 1, skip=0.5)
    assert_same(*(two_passes(n, image, *plans) for n in (fast, network)))


def in_context(network: nn.Module, norm: nn.Module) -> bool:
    whole = [network.get_submodule(name) for name in network.dense_modules]  # type: ignore[attr-defined]
    return any(module is norm for part in whole for module in part.modules())


@pytest.mark.parametrize("size", [(1, 1), (64, 96), (97, 31), (130, 64)])
@torch.no_grad()
def test_any_size_gives_the_same_answer(size: tuple[int, int]) -> None:
    network, image = nano(), torch.rand(2, 3, *size)
    assert_same(fuse(network)(image), network(image))


@settings(max_examples=25)
@given(source=sources())
@torch.no_grad()
def test_tangled_networks_give_the_same_answer(source: Random) -> None:
    kind, size = source.choice([torch.float32, torch.float64]), random_size(source, TILE, 4)
    torch.manual_seed(source.randint(0, 2**30))
    network = shaken(TangledNetwork(source)).to(kind).eval()
    fast, image = fuse(network), image_for(source, size, kind)
    assert_same(fast(image), network(image))
    plans = [random_plan(source, len(image), size, TILE, 2, skip) for skip in (source.choice([0, 0.3]), 0.6)]
    assert_same(*(two_passes(n, image, *plans) for n in (fast, network)))


@pytest.mark.skipif(not native.available(), reason="no compiler")
@settings(max_examples=20)
@given(source=sources())
@torch.no_grad()
def test_the_answer_is_the_same_whatever_algorithms_compute_it(source: Random) -> None:
    size = random_size(source, TILE, 4)
    torch.manual_seed(source.randint(0, 2**30))
    network, image = shaken(TangledNetwork(source)).eval(), image_for(source, size, torch.float32)
    plan = random_plan(source, len(image), size, TILE, 2)
    with pytest.MonkeyPatch.context() as patch:
        module = import_module("foveal.ops.convolve.native")
        patch.setattr(module, "choose", lambda x, layout, c, run: source.choice(algorithms(c)))
        fast = fuse(network)
        assert_same(fast(image), network(image))
        assert_same(fast(split(image, plan)).dense(), network(split(image, plan)).dense())


@pytest.mark.parametrize("name", ["swiftnet_nano", "swiftnet_mobilenetv2"])
@torch.no_grad()
def test_as_many_macs_are_counted(name: str) -> None:
    network, image = shaken(create_model(name, 4)).eval(), torch.rand(1, 3, 65, 97)
    fast, plan = fuse(network), random_plan(Random(0), 1, (65, 97), 32, 1)
    assert count_macs(lambda: fast(image)) == count_macs(lambda: network(image))
    for module in (fast, network):
        run_dense(module.get_submodule("head.context"))
    tiles = [count_macs(lambda n=n: n(split(image, plan))) for n in (fast, network)]
    assert tiles[0] == tiles[1]


@settings(max_examples=20)
@given(source=sources())
@torch.no_grad()
def test_networks_that_overwrite_values_give_the_same_answer_or_cannot_be_fused(source: Random) -> None:
    torch.manual_seed(source.randint(0, 2**30))
    network, image = shaken(TangledNetwork(source, overwriting=True)).eval(), torch.rand(2, 3, 33, 45)
    assert_same(faster(network)(image.clone()), network(image.clone()))


class PooledLast(nn.Module):
    """Pyramid pooling of maps with channels last, whose activation overwrites a map of one sample."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 48, 4, 4), nn.LayerNorm(48)
        self.mean = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(48, 16, 1, bias=False), nn.ReLU(inplace=True)
        )
        self.mix, self.head = nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 4, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.stem(image).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        mean = F.interpolate(self.mean(x), size=x.shape[2:], mode="bilinear", align_corners=True)
        return self.head(self.mix(torch.cat([mean, x], 1)).relu())


@torch.no_grad()
def test_maps_may_lie_in_memory_in_another_order_where_nothing_is_overwritten() -> None:
    """Convolutions then take other algorithms, and round otherwise: bits differed, and it was not fused."""
    torch.manual_seed(0)
    network, image = PooledLast().eval(), torch.rand(2, 3, 64, 96)
    assert_same(fuse(network)(image), network(image))


@settings(max_examples=20)
@given(source=sources())
@torch.no_grad()
def test_modules_that_see_the_whole_map_stay_whole(source: Random) -> None:
    """They are not among `dense_modules` here: what `run_dense` did to them is enough."""
    network, size = RandomNetwork(source).double(), random_size(source, TILE, 4)
    fast, image = fuse(network), torch.rand(2, 3, *size, dtype=torch.float64)
    plan = random_plan(source, 2, size, TILE, 2)
    assert_same(fast(split(image, plan)).dense(), network(split(image, plan)).dense())
