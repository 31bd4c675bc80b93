"""Residual units are found by structure, in networks as they are and with their layers joined."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from families import EfficientUNet
from foveal.fusion import fuse
from foveal.fusion.graph import trace
from foveal.gates import GatedNetwork, Unit, find_units
from foveal.models import MODELS, create_model
from samples import headless, nano, shaken, tower

COUNTS = {
    "swiftnet_rn18": 8,
    "swiftnet_rn18_s16": 6,
    "swiftnet_rn50": 16,
    "swiftnet_efflite1": 14,
    "swiftnet_mobilenetv2": 10,
    "swiftnet_nano": 4,
}


def told(units: tuple[Unit, ...]) -> list[tuple[object, ...]]:
    return [(u.name, u.channels, u.stride, u.layers) for u in units]


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("lattice")])
def test_networks_have_their_units_before_and_after_layers_are_joined(name: str) -> None:
    network = create_model(name, 3).eval()
    plain, joined = find_units(trace(network)), find_units(fuse(network))  # type: ignore[arg-type]
    assert len(joined) == COUNTS[name]
    assert told(plain) == told(joined)


def test_a_basic_block_is_two_windows_and_a_bottleneck_is_three() -> None:
    basic = find_units(trace(create_model("swiftnet_rn18_s16", 3).eval()))
    assert [u.name for u in basic] == [
        f"encoder_layer{stage}_{block}_conv2" for stage in (1, 2, 3) for block in (0, 1)
    ]
    assert [(u.channels, u.stride) for u in basic] == [
        (64, 1),
        (64, 1),
        (64, 2),
        (128, 1),
        (128, 2),
        (256, 1),
    ]
    assert [layer.kernel for layer in basic[0].layers] == [(3, 3), (3, 3)]
    assert basic[2].layers[0].macs == 9 * 64 * 128 and basic[2].layers[0].places == 16 * 24
    deep = find_units(trace(create_model("swiftnet_rn50", 3).eval()))
    assert [layer.kernel for layer in deep[0].layers] == [(1, 1), (3, 3), (1, 1)]
    assert deep[3].layers[1].stride == 2 and deep[3].layers[0].places == 4 * deep[3].layers[1].places


def test_joined_activations_do_not_hide_a_unit() -> None:
    """What is no clamp stays a step of its own between two convolutions."""

    class Smooth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 2, 1)
            self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.norm, self.act = nn.BatchNorm2d(8), nn.SiLU()

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(F.silu(self.two(self.act(self.norm(self.one(x)))) + x))

    network = shaken(Smooth()).eval()
    plain, joined = find_units(trace(network)), find_units(fuse(network))  # type: ignore[arg-type]
    assert told(plain) == told(joined) and len(joined) == 1
    assert len(joined[0].steps) == 3 and len(plain[0].steps) == 4


def test_norms_before_convolutions_belong_to_the_branch() -> None:
    class Before(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, 2, 1)
            self.first, self.second = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
            self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return x + self.two(F.relu(self.second(self.one(F.relu(self.first(x))))))

    network = shaken(Before()).eval()
    plain, joined = find_units(trace(network)), find_units(fuse(network))  # type: ignore[arg-type]
    assert told(plain) == told(joined) and len(joined) == 1
    assert joined[0].given == joined[0].root and plain[0].given != plain[0].root


@pytest.mark.parametrize("make", [headless, tower, EfficientUNet])
def test_networks_without_units_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    """A branch that sees the whole map is none, for it cannot be computed at some positions alone."""
    with pytest.raises(
        ValueError, match=r"has no residual units .*; give a network with some, such as a ResNet"
    ):
        GatedNetwork(make().eval())


def test_a_sum_of_maps_that_are_no_branch_and_shortcut_is_no_unit() -> None:
    names = [unit.name for unit in find_units(trace(nano()))]
    assert all(name.startswith("encoder") for name in names), "laterals of the decoder are added too"


def test_shares_are_those_of_the_counted_convolutions() -> None:
    network = create_model("swiftnet_rn18", 19).eval()
    gated = GatedNetwork(network)
    # 1024x2048: 103.6 GMAC, of which 4.9 in the stem and 27.8 in the decoder, 1.6 in shortcuts.
    assert gated.outside == pytest.approx((4.93 + 27.8 + 1.6) / 103.6, abs=0.01)
    assert torch.tensor([sum(layers) for layers in gated.shares]).sum() == pytest.approx(1 - gated.outside)
