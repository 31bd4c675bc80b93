"""Units at some positions: there they give what they give everywhere, elsewhere their shortcut."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conformance import assert_close
from foveal.cost import count_macs
from foveal.fusion import fuse
from foveal.gates import GatedNetwork, MaskedNetwork
from foveal.gates.positions import Branch, Choice, Size, open_where
from foveal.kernels.abi import plain
from foveal.models import MODELS, create_model
from samples import nano, shaken

SIZE = (75, 101)


class Masks:
    """Masks of every unit that do not depend on the map: clusters, of a share of the positions."""

    def __init__(self, gated: GatedNetwork, share: float, seed: int = 0) -> None:
        self.gated, self.share, self.seed = gated, share, seed
        self.work = gated.outside

    def draw(self, number: int, size: Size) -> Tensor:
        numbers = torch.Generator().manual_seed(self.seed + number)
        values = torch.rand(1, 1, *size, generator=numbers)
        smooth = nn.functional.avg_pool2d(values, 3, 1, 1, count_include_pad=False)[0, 0]
        return smooth <= smooth.flatten().quantile(self.share) if self.share else smooth < 0

    def decide(self, number: int, x: Tensor, branch: Branch) -> Choice:
        choice = open_where(self.draw(number, branch.sizes[-1]).numpy(), branch)
        self.work += choice.work
        return choice

    def mask(self, number: int, x: Tensor) -> Tensor:
        stride = self.gated.units[number].stride
        return self.draw(number, (-(-x.shape[2] // stride), -(-x.shape[3] // stride)))[None]


@pytest.mark.parametrize("native", [True, False], ids=["native", "torch"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("lattice")])
def test_positions_alone_give_what_masks_give(name: str, share: float, native: bool) -> None:
    network, image = shaken(create_model(name, 5)).eval(), torch.rand(1, 3, *SIZE)
    gated = GatedNetwork(network)
    masks = Masks(gated, share)
    with torch.no_grad(), nullcontext() if native else plain():
        expected = MaskedNetwork(network).run(image, masks.mask)
        assert_close(gated.run(image, masks.decide), expected, 1e-4)


@pytest.mark.parametrize("name", ["swiftnet_rn18_s16", "swiftnet_rn50", "swiftnet_mobilenetv2"])
def test_everything_open_is_the_joined_network_bit_by_bit(name: str) -> None:
    network = fuse(shaken(create_model(name, 5)).eval())
    gated, image = GatedNetwork(network), torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        assert torch.equal(gated.run(image, Masks(gated, 1.0).decide), network(image))


@pytest.mark.parametrize("native", [True, False], ids=["native", "torch"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_counted_macs_are_those_of_the_positions(share: float, native: bool) -> None:
    network, image = fuse(create_model("swiftnet_rn18_s16", 5).eval()), torch.rand(1, 3, 128, 192)
    gated = GatedNetwork(network)
    masks = Masks(gated, share)
    with nullcontext() if native else plain():
        spent = count_macs(lambda: gated.run(image, masks.decide))
    assert spent.convolution + spent.product == round(masks.work * gated.macs_per_image)


def test_maps_are_let_go_and_inputs_stay_as_they_are() -> None:
    network, image = fuse(nano()), torch.rand(1, 3, *SIZE)
    gated, before = GatedNetwork(network), image.clone()
    seen: list[tuple[Tensor, Tensor]] = []

    def decide(number: int, x: Tensor, branch: Branch) -> Choice:
        seen.append((x, x.clone()))
        return Masks(gated, 0.4).decide(number, x, branch)

    with torch.no_grad():
        gated.run(image, decide)
    assert torch.equal(image, before)
    assert len(seen) == 4 and all(torch.equal(x, was) for x, was in seen)


def test_new_weights_are_those_that_run() -> None:
    network, image = fuse(nano()), torch.rand(1, 3, *SIZE)
    gated = GatedNetwork(network)
    masks = Masks(gated, 0.4)
    with torch.no_grad():
        first = gated.run(image, masks.decide)
        other = nano()
        network.load_state_dict(fuse(other).state_dict())
        expected = MaskedNetwork(other).run(image, masks.mask)
        assert not torch.allclose(first, expected, atol=1e-3)
        assert_close(gated.run(image, masks.decide), expected, 1e-4)


def test_a_copy_runs_on_its_own_weights() -> None:
    network, image = fuse(nano()), torch.rand(1, 3, *SIZE)
    gated = GatedNetwork(network)
    twin, masks = copy.deepcopy(gated), Masks(gated, 0.4)
    with torch.no_grad():
        before = gated.run(image, masks.decide)
        assert torch.equal(twin.run(image, masks.decide), before)
        twin.joined.load_state_dict({k: v * 1.1 for k, v in twin.joined.state_dict().items()})
        assert torch.equal(gated.run(image, masks.decide), before)
        assert not torch.allclose(twin.run(image, masks.decide), before, atol=1e-3)


def test_activations_between_convolutions_run_on_rows() -> None:
    class Smooth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 2, 1)
            self.one, self.two = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x: Any) -> Any:
            x = self.stem(x)
            return self.head(nn.functional.silu(self.two(nn.functional.silu(self.one(x))) + x))

    network, image = Smooth().eval(), torch.rand(1, 3, *SIZE)
    gated = GatedNetwork(network)
    masks = Masks(gated, 0.4)
    with torch.no_grad():
        expected = MaskedNetwork(network).run(image, masks.mask)
        assert_close(gated.run(image, masks.decide), expected, 1e-4)


def test_joined_layers_are_not_trained() -> None:
    with pytest.raises(ValueError, match="layers of this network are joined, for inference"):
        MaskedNetwork(fuse(nano()))


def test_masks_multiply_branches_alone() -> None:
    network, image = nano().train(), torch.rand(2, 3, 64, 96)
    masked = MaskedNetwork(network)
    seen = list[int]()

    def mask(number: int, x: Tensor) -> Tensor:
        seen.append(number)
        stride = masked.units[number].stride
        return torch.ones(2, -(-x.shape[2] // stride), -(-x.shape[3] // stride))

    assert_close(masked.run(image, mask), network(image))
    assert seen == [0, 1, 2, 3]
    assert np.all([not p.grad for p in network.parameters()])
