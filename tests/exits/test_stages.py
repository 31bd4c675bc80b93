"""A network that is cut into stages gives its own answer, and says where it may be left."""

from __future__ import annotations

import copy
from functools import partial
from random import Random

import pytest
import torch
from torch import Tensor, nn

from conformance import assert_close
from foveal.cost import count_macs
from foveal.exits import ExitConfig, Exits, Stages
from foveal.fusion import fuse
from foveal.geometry.plan import Plan
from foveal.models import MODELS, create_model
from foveal.ops import compose_tiles
from foveal.tiles import TileTensor, split
from samples import nano, shaken, tower
from strategies import random_plan


@torch.no_grad()
def through(stages: Stages, image: Tensor | TileTensor) -> Tensor:
    values = stages.start(image)
    for stage in range(len(stages)):
        values = stages.run(stage, values)
    return stages.at(len(stages) - 1, values)


@pytest.mark.parametrize("joined", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("name", ["swiftnet_rn18_s16", "swiftnet_nano", "swiftnet_mobilenetv2"])
def test_stages_one_after_the_other_are_the_network(name: str, joined: bool) -> None:
    network = shaken(create_model(name, 5)).eval()
    network = fuse(network) if joined else network
    image = torch.rand(2, 3, 75, 101)
    with torch.no_grad():
        assert_close(through(Stages(network), image), network(image))


@pytest.mark.parametrize(
    "name", [name for name in MODELS if name != "swiftnet_rn50" and not name.startswith("lattice")]
)
def test_places_have_the_same_names_before_and_after_layers_are_joined(name: str) -> None:
    network = create_model(name, 3).eval()
    plain, joined = Stages(network), Stages(fuse(network))
    assert [(p.name, p.channels, p.stride) for p in plain.places] == [
        (p.name, p.channels, p.stride) for p in joined.places
    ]
    assert plain.shares == pytest.approx(joined.shares, abs=1e-6) and sum(plain.shares) == pytest.approx(1)


def test_stages_run_on_tiles_of_any_plan() -> None:
    network, source = nano(), Random(3)
    image = torch.rand(1, 3, 160, 224)
    plan = random_plan(source, 1, (160, 224), 32, 2)
    with torch.no_grad():
        expected = network(split(image, plan)).dense()
        assert_close(through(Stages(network), split(image, plan)).dense(), expected)


def test_nothing_is_computed_before_it_is_needed() -> None:
    """The lateral convolutions of the decoder wait for the last stage; no map is kept longer than used."""
    stages = Stages(create_model("swiftnet_rn18_s16", 3).eval())
    values = stages.start(torch.rand(1, 3, 64, 96))
    kept = []
    for stage in range(len(stages)):
        values = stages.run(stage, values)
        kept.append({tuple(value.shape[1:]) for value in values.values() if isinstance(value, Tensor)})
    assert kept == [{(64, 16, 24)}, {(64, 16, 24), (128, 8, 12)}, {(3, 16, 24)}]


def test_shares_are_those_of_the_counted_convolutions() -> None:
    network = tower()
    stages = Stages(network, ["1", "4"])
    values, found = stages.start(torch.rand(1, 3, 64, 64)), []
    for stage in range(3):
        found.append(count_macs(partial(stages.run, stage, values)).convolution)
        values = stages.run(stage, values)
    assert stages.shares == pytest.approx([macs / sum(found) for macs in found])
    assert stages.macs_per_pixel == pytest.approx(sum(found) / 64**2)


def test_training_the_stages_trains_the_network() -> None:
    network = shaken(create_model("swiftnet_nano", 3)).train()
    before = copy.deepcopy(network.state_dict())
    stages = Stages(network)
    assert all(torch.equal(x, before[key]) for key, x in network.state_dict().items()), "statistics moved"
    assert network.training and not stages.state_dict()
    values = stages.start(torch.rand(2, 3, 64, 64))
    for stage in range(len(stages)):
        values = stages.run(stage, values)
    stages.at(len(stages) - 1, values).square().mean().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in network.parameters())


def test_a_copy_runs_on_its_own_network() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = nano()
            self.stages = Stages(self.network)

    both, image = Both(), torch.rand(1, 3, 64, 96)
    twin = copy.deepcopy(both)
    before = through(both.stages, image)
    with torch.no_grad():
        for parameter in twin.network.parameters():
            parameter.add_(0.1)
        assert torch.equal(through(both.stages, image), before)
        assert_close(through(twin.stages, image), twin.network(image))


def test_a_place_beside_a_shortcut_is_none() -> None:
    names = [place.name for place in Stages.places_of(create_model("swiftnet_rn18_s16", 3).eval())]
    assert "encoder.layer1.0" in names and "encoder.layer2" in names
    assert not any("conv2" in name or "downsample" in name for name in names)
    with pytest.raises(ValueError, match=r"no place in the network .* named 'encoder.layer2.0.conv1'"):
        Stages(create_model("swiftnet_rn18_s16", 3).eval(), ["encoder.layer2.0.conv1"])


@pytest.mark.parametrize(
    "names", [["encoder.layer2", "encoder.layer1"], ["encoder.layer1", "encoder.layer1"], []]
)
def test_places_come_in_the_order_in_which_they_run(names: list[str]) -> None:
    with pytest.raises(ValueError, match="give modules in the order in which they run, each once"):
        Stages(create_model("swiftnet_rn18_s16", 3).eval(), names)


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match="Odd cannot be cut into stages"):
        Stages(Odd())


@pytest.mark.parametrize("kind", ["fcn", "aspp"])
def test_heads_are_of_the_shape_that_is_asked_for(kind: str) -> None:
    stages = Stages(nano())
    exits = Exits.of(stages, ExitConfig("", width=24, blocks=1, dilation=2, kind=kind), seed=3)  # type: ignore[arg-type]
    assert exits.places == tuple(place.name for place in stages.places)
    for head, place in zip(exits, stages.places, strict=True):
        assert head(torch.rand(1, place.channels, 8, 12)).shape == (1, 5, 8, 12)
    again = Exits.of(stages, ExitConfig("", width=24, blocks=1, dilation=2, kind=kind), seed=3)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(exits.parameters(), again.parameters(), strict=True))


def test_heads_of_another_network_are_refused() -> None:
    stages = Stages(nano())
    others = Exits([ExitConfig(place.name, 7) for place in stages.places], 5)
    with pytest.raises(ValueError, match="is for 7 channels and 5 classes; the network has 32 there"):
        others.check_fit(stages)
    with pytest.raises(ValueError, match="there are no exits"):
        Exits([], 5)


def test_uniform_plans_at_a_level_give_the_network_on_the_reduced_image() -> None:
    stages, image = Stages(nano()), torch.rand(1, 3, 128, 192)
    tiles = split(image, Plan.uniform(1, (128, 192), 32, 1))
    found = through(stages, tiles)
    small = nn.functional.avg_pool2d(image, 2)
    with torch.no_grad():
        assert_close(compose_tiles(found.tiles, found.layout, 1), through(stages, small), 1e-5)


@pytest.mark.parametrize("joined", [False, True], ids=["plain", "fused"])
def test_maps_beside_which_something_goes_past_may_be_named_too(joined: bool) -> None:
    """The decoder's map at stride 8: shortcuts of stride 4 go past it, and run after it."""
    plain, image = nano(), torch.rand(1, 3, 75, 101)
    network = fuse(plain) if joined else plain
    names = ("encoder.stem", "head.blend.1")
    with pytest.raises(ValueError, match=r"no place in the network that all of it goes through named 'head"):
        Stages(network, names)
    stages = Stages(network, names, anywhere=True)
    assert [(place.channels, place.stride) for place in stages.places] == [(16, 4), (48, 8)]
    kept: list[Tensor] = []
    plain.get_submodule("head.blend.1").register_forward_hook(lambda _module, _given, map_: kept.append(map_))
    with torch.no_grad():
        expected = plain(image)
        assert_close(through(stages, image), expected)
        values = stages.run(1, stages.run(0, stages.start(image)))
    assert_close(stages.at(1, values), kept[0])
    assert not any(node.name.startswith(("head_lateral_0", "head_blend_0")) for node in stages.nodes[1])
