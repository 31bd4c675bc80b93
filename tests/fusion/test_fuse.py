"""What fusion joins, and what it leaves as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.fusion import fuse
from foveal.fusion.layers import Convolve
from foveal.models.mobilenet import SamePaddedConv2d
from fused_cases import TILE, two_passes
from samples import shaken
from strategies import random_plan
from tangled import NEAR, Net, assert_same, conv

EVEN = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def joined(network: nn.Module) -> list[Convolve]:
    return [module for module in network.modules() if isinstance(module, Convolve)]


def others(network: Any) -> list[str]:
    """Names of what a fused network does besides its joined layers."""
    calls = [node for node in network.graph.nodes if node.op.startswith("call")]
    return [getattr(n.target, "__name__", n.target) for n in calls if "joined" not in str(n.target)]


@torch.no_grad()
def fused(network: nn.Module, size: tuple[int, int] = (33, 45), tile: int = TILE) -> nn.Module:
    """Fuse, and compare on images, on tiles of several levels, and on tiles beside remembered ones."""
    network = shaken(network).eval()
    for kind in NEAR:
        plain = copy.deepcopy(network).to(kind)
        fast, image, source = fuse(plain), torch.rand(2, 3, *size).to(kind), Random(1)
        assert_same(fast(image.clone()), plain(image.clone()))
        plan = random_plan(source, 2, size, tile, 2)
        again = random_plan(source, 2, size, tile, 1, skip=0.5)
        assert_same(*(two_passes(n, image, plan, again) for n in (fast, plain)))
    return fuse(network)


def test_a_norm_and_an_activation_before() -> None:
    fast = fused(nn.Sequential(conv(3, 8), nn.Hardswish(), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 5, 5)))
    assert others(fast) == ["1"]
    assert [layer.convolution.prologue is not None for layer in joined(fast)] == [False, True]


@pytest.mark.parametrize("last", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.3, 0.4), nn.ReLU(inplace=True)])
def test_a_shortcut_between_norms_and_an_activation_after(last: nn.Module) -> None:
    def run(net: Any, x: Any) -> Any:
        x = net.stem(x)
        return net.last(net.norm(net.second(net.first(x)) + x))

    layers = {"stem": conv(3, 16), "norm": nn.BatchNorm2d(16), "last": last}
    network = Net(run, first=conv(16, 16, bias=False), second=nn.BatchNorm2d(16), **layers)
    assert others(fused(network)) == []


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


@pytest.mark.parametrize(
    "layer",
    [
        conv(3, 8, 1),
        conv(3, 16, 7, 2),
        conv(3, 8, 3, 2, bias=False),
        conv(3, 8, 1, 2),
        conv(3, 8, 3, 4),
        conv(3, 3, groups=3),
        conv(3, 6, groups=3),
        conv(3, 3, 5, 2, groups=3),
        conv(3, 9, padding=4, dilation=4),
        conv(3, 3, groups=3, padding=2, dilation=2),
        conv(3, 8, padding="same"),
        pytest.param(conv(3, 8, 4, padding="same"), marks=EVEN),
        nn.Conv2d(3, 8, (1, 5), padding=(0, 2)),
        nn.Conv2d(3, 8, (3, 5), 2, (1, 2)),
        SamePaddedConv2d(3, 8, 3, 2),
        SamePaddedConv2d(3, 3, 5, 2, groups=3, bias=False),
        Standardised(3, 8, 3, padding=1),
    ],
    ids=str,
)
def test_convolutions_that_are_taken(layer: nn.Conv2d) -> None:
    width = layer.out_channels
    around = nn.BatchNorm2d(3), layer, nn.BatchNorm2d(width), nn.ReLU6()
    fast = fused(nn.Sequential(*around))
    assert others(fast) == (["0"] if layer.groups > 1 else [])


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(3, 8, 2, 2),
        nn.Conv2d(3, 8, 3, (2, 1), 1),
        nn.Conv2d(3, 8, 3, padding=(2, 1), dilation=(2, 1)),
        conv(3, 8, 5, padding=1),
        conv(3, 8, padding_mode="reflect"),
        conv(3, 8, padding="valid"),
    ],
    ids=str,
)
@torch.no_grad()
def test_convolutions_that_are_not_taken(layer: nn.Conv2d) -> None:
    network, image = (
        shaken(nn.Sequential(layer, nn.BatchNorm2d(8), nn.ReLU())).eval(),
        torch.rand(2, 3, 33, 45),
    )
    fast = fuse(network)
    assert not joined(fast)
    assert_same(fast(image), network(image))


def test_a_value_that_is_used_twice_is_not_swallowed() -> None:
    def after(net: Any, x: Any) -> Any:
        y = net.first(x)
        z = net.norm(y)
        return F.relu(z) + z * y

    assert others(fused(Net(after, first=conv(3, 8), norm=nn.BatchNorm2d(8)))) == [
        "norm",
        "relu",
        "mul",
        "add",
    ]

    def before(net: Any, x: Any) -> Any:
        y = F.relu(net.norm(net.first(x).sigmoid()))
        return net.second(y) + y

    network = Net(before, first=conv(3, 8), norm=nn.BatchNorm2d(8), second=conv(8, 8))
    assert others(fused(network)) == ["sigmoid", "norm", "relu"]


@pytest.mark.parametrize(
    "add",
    [
        lambda x, y: x + y.mean((2, 3), keepdim=True),
        lambda x, y: y.mean((2, 3), keepdim=True) + x,
        lambda x, y: x + y[:, :1],
        lambda x, y: x + 0.5,
        lambda x, y: torch.add(x, y, alpha=2),
        lambda x, y: x + x,
        lambda x, y: x - y,
    ],
)
def test_what_is_no_shortcut_is_not_taken_for_one(add: Callable[[Any, Any], Any]) -> None:
    network = Net(lambda net, x: add(net.a(x), net.b(x)), a=conv(3, 8), b=conv(3, 8, 5))
    assert not [layer for layer in joined(fused(network)) if layer.residual_scale is not None]


@torch.no_grad()
def test_a_map_of_one_sample_may_be_added_to_a_larger_one_at_another_size() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.a(x) + F.adaptive_avg_pool2d(net.b(x), 1)

    network = Net(run, a=conv(3, 16, 3, 64), b=conv(3, 16)).eval()
    image = torch.rand(2, 3, 150, 200)
    assert_same(fuse(network)(image), network(image))


def test_numbers_that_spread_a_map_over_channels_stay_outside() -> None:
    def run(net: Any, x: Any) -> Any:
        return net.a((x[:, :1] - net.mean) / net.std)

    fused(Net(run, a=conv(3, 8), mean=torch.rand(1, 3, 1, 1), std=torch.rand(1, 3, 1, 1) + 0.5))


def test_a_layer_that_is_called_twice_has_its_own_surroundings_each_time() -> None:
    def run(net: Any, x: Any) -> Any:
        x = net.stem(x)
        return net.shared(F.relu(net.norm(net.shared(x)))) + x

    fast = fused(Net(run, stem=conv(3, 8), shared=conv(8, 8), norm=nn.BatchNorm2d(8)))
    assert [(c.convolution.low == 0, c.residual_scale is not None) for c in joined(fast)] == [
        (False, False),
        (True, False),
        (False, True),
    ]


def test_dropout_and_identity_vanish() -> None:
    layers = (
        nn.Identity(),
        conv(3, 8),
        nn.Dropout(),
        nn.BatchNorm2d(8),
        nn.Dropout2d(),
        nn.ReLU(),
        nn.Identity(),
    )
    assert others(fused(nn.Sequential(*layers))) == []


def test_layers_that_nothing_uses_vanish() -> None:
    def run(net: Any, x: Any) -> Any:
        x = net.stem(x)
        net.unused(x)
        return net.last(x)

    assert len(joined(fused(Net(run, stem=conv(3, 8), unused=conv(8, 8), last=conv(8, 8))))) == 2


def test_inputs_may_be_given_by_name() -> None:
    def run(net: Any, x: Any) -> Any:
        x = net.drop(input=net.first(input=x))
        return net.second(input=F.relu(input=net.norm(input=x)))

    layers = {"first": conv(3, 8), "second": conv(8, 8), "norm": nn.BatchNorm2d(8), "drop": nn.Dropout()}
    assert others(fused(Net(run, **layers))) == []


def test_a_norm_without_statistics_stays() -> None:
    norm = nn.BatchNorm2d(8, affine=False, track_running_stats=False)
    network, image = nn.Sequential(conv(3, 8), norm, nn.ReLU()).eval(), torch.rand(2, 3, 33, 45)
    with torch.no_grad():
        assert_same(fuse(network)(image), network(image))


def test_hooks_keep_working() -> None:
    network, image = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8)).eval(), torch.rand(2, 3, 33, 45)
    network[0].register_forward_hook(lambda module, given, out: 2 * out)
    network[1].register_forward_pre_hook(lambda module, given: (given[0] - 0.1,))
    with torch.no_grad():
        fast = fuse(network)
        assert_same(fast(image), network(image))
    assert len(joined(fast)) == 1


def test_activations_that_overwrite_do_not_reach_layers_that_ran_before() -> None:
    def run(net: Any, x: Any) -> Any:
        x = net.stem(x)
        short = net.short(x)
        return net.last(net.relu(x)) + short

    relu = nn.ReLU(inplace=True)
    network, image = (
        Net(run, stem=conv(3, 8), short=conv(8, 8, 1), last=conv(8, 8), relu=relu).eval(),
        torch.rand(2, 3, 33, 45),
    )
    with torch.no_grad():
        fast = fuse(network)
        assert_same(fast(image), network(image))
    assert len(joined(fast)) == 3 and relu.inplace
