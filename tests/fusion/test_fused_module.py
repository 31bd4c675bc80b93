from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.fusion import CannotFuse, faster, fuse
from foveal.kernels import build as native
from foveal.models.mobilenet import SamePaddedConv2d
from foveal.ops.convolve.autotune import AUTOTUNER
from samples import headless, nano, shaken
from tangled import Net, assert_same, conv

native_only = pytest.mark.skipif(not native.available(), reason="no compiler")


# What cannot be fused


def by_value(net: Any, x: Tensor) -> Tensor:
    return net.a(x) if x.mean() > 0 else x


def by_class(net: Any, x: Tensor) -> Tensor:
    return net.a(x) if isinstance(x, Tensor) else net.a(x) + 1


def by_overwriting(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    F.relu(y, inplace=True)
    return y


def by_size(net: Any, x: Tensor) -> Tensor:
    return net.a(x) + net.place


def by_own_numbers(net: Any, x: Tensor) -> Tensor:
    return net.a(x) * math.sqrt(x.shape[2])


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            by_value,
            r"Net cannot be traced at .*_module.py:\d+ `return .*`: symbolically .* flow; let it",
        ),
        (by_class, "Net gives another answer once it is traced"),
        (by_overwriting, "Net gives another answer once it is traced"),
        (by_size, r"Net cannot be traced at .*: The size of tensor a \(192\) must match"),
        (by_own_numbers, "Net computes numbers from the image's size in its own way before 'mul', and no"),
    ],
)
@torch.no_grad()
def test_what_cannot_be_fused_runs_as_it_is(run: Callable[..., Any], message: str) -> None:
    network = Net(run, a=conv(3, 8), place=torch.rand(1, 8, 20, 20)).eval()
    with pytest.raises(CannotFuse, match=message) as error:
        fuse(network)
    assert "\n" not in str(error.value)
    assert faster(network) is network


# The fused network as a module


@pytest.mark.parametrize("training", [True, False])
def test_the_given_network_is_not_changed(training: bool) -> None:
    network = nano().train(training)
    before, needs = copy.deepcopy(network.state_dict()), [p.requires_grad for p in network.parameters()]
    modes = [module.training for module in network.modules()]
    fast = fuse(network)
    assert not fast.training and not any(p.requires_grad for p in fast.parameters())
    assert [module.training for module in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == needs
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    with torch.no_grad():
        for value in network.state_dict().values():
            value.zero_()
        image = torch.rand(1, 3, 64, 64)
        plain = nano()
        plain.load_state_dict(before)
        assert_same(fast(image), plain(image))


class Stages(nn.Module):
    """A backbone that returns an object with its maps, as those of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3, 8), conv(8, 8)

    def forward(self, x: Tensor) -> Any:
        first = self.first(x)
        return SimpleNamespace(last=None, maps=(first, self.second(first)))


@torch.no_grad()
@pytest.mark.parametrize("whole", [(), ("body",)])
def test_maps_may_come_out_of_an_object(whole: tuple[str, ...]) -> None:
    """As long as the backbone is one node its maps were taken for constants of the example."""

    def run(net: Any, x: Tensor) -> Tensor:
        one, two = net.body(x).maps
        return net.head(torch.cat([one, two], 1))

    network, image = Net(run, body=Stages(), head=conv(16, 4)).eval(), torch.rand(1, 3, 40, 52)
    assert_same(fuse(network, whole)(image), network(image))


class Described(nn.Module):
    classes, stride, coarsest_stride = 8, 1, 1
    dense_modules = ("context",)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.context = conv(3, 8), nn.AdaptiveAvgPool2d((2, 3))
        self.meta, self.graph = "kept from torch.fx", None

    @property
    def words(self) -> list[str]:
        return ["a", "b"]

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + F.interpolate(self.context(x), size=x.shape[2:], mode="bilinear")


NAMES = ("classes", "stride", "coarsest_stride", "dense_modules")


def test_what_a_network_says_about_itself_survives_in_copies_too() -> None:
    for network in (nano(), Described().eval()):
        fast = fuse(network)
        for module in (fast, copy.deepcopy(fast), copy.deepcopy(copy.deepcopy(fast))):
            assert [getattr(module, name) for name in NAMES] == [getattr(network, name) for name in NAMES]
    assert fast.words == ["a", "b"]
    assert not hasattr(fuse(headless()), "classes")


class Annotated(Described):
    """What `from __future__ import annotations` makes strings of, and sides that are computed."""

    def forward(self, image: Tensor, scale: float = 1.0) -> Tensor:
        height, width = image.shape[-2:]
        return F.interpolate(super().forward(image), size=(-(-height // 2), width // 2)) * scale


@torch.no_grad()
@pytest.mark.parametrize("make", [nano, lambda: Described().eval(), lambda: Annotated().eval()])
def test_a_fused_network_can_be_pickled(make: Callable[[], nn.Module]) -> None:
    fast, image = fuse(make()), torch.rand(1, 3, 65, 70)
    fast(image)
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    for again in (pickle.loads(pickle.dumps(fast)), torch.load(file, weights_only=False)):
        for each in (again, copy.deepcopy(again), pickle.loads(pickle.dumps(again))):
            assert type(each).__name__ == type(fast).__name__ and not each.training
            assert torch.equal(each(image), fast(image))
            assert [getattr(each, n, None) for n in NAMES] == [getattr(fast, n, None) for n in NAMES]


@torch.no_grad()
def test_a_fused_network_can_be_moved_and_loaded() -> None:
    network, image = nano(), torch.rand(1, 3, 65, 64)
    fast = fuse(network)
    fast(image)
    doubled = fast.double()(image.double())
    assert doubled.dtype == torch.float64
    torch.testing.assert_close(doubled.float(), network(image), rtol=0, atol=1e-6)
    assert_same(fast.float().to(memory_format=torch.channels_last)(image), network(image))
    assert fast.bfloat16()(image.bfloat16()).dtype == torch.bfloat16
    assert_same(fuse(copy.deepcopy(network).double()).float()(image), network(image))
    other, again = nano(), fuse(network)
    for assign in (False, True):
        again(image)
        again.load_state_dict(fuse(other).state_dict(), assign=assign)
        assert_same(again(image), other(image))
        again.load_state_dict(fuse(network).state_dict(), assign=assign)
        assert_same(again(image), network(image))


@torch.no_grad()
def test_copies_run_on_their_own_weights() -> None:
    network, image = shaken(headless()), torch.rand(1, 3, 65, 64)
    fast = fuse(network)
    expected = fast(image)
    twin = copy.deepcopy(fast)
    assert torch.equal(twin(image), expected)
    twin.load_state_dict({key: value + 0.1 for key, value in twin.state_dict().items()})
    assert not torch.allclose(twin(image), expected, atol=1e-2)
    assert torch.equal(fast(image), expected)


@torch.no_grad()
def test_a_fused_network_can_be_fused_again() -> None:
    network, image = nano(), torch.rand(1, 3, 65, 64)
    assert_same(fuse(fuse(network))(image), network(image))


def test_gradients_flow_to_the_image() -> None:
    network, image = nano(), torch.rand(1, 3, 64, 64, requires_grad=True)
    slopes = [torch.autograd.grad(n(image).square().sum(), image)[0] for n in (fuse(network), network)]
    assert_same(*slopes)


@native_only
@torch.no_grad()
def test_wrong_channels_are_refused_as_by_the_network() -> None:
    network = nn.Sequential(conv(3, 8), nn.ReLU()).eval()
    fast = fuse(network)
    for channels in (1, 2, 4):
        image = torch.rand(1, channels, 64, 64)
        for module in (network, fast):
            with pytest.raises((RuntimeError, ValueError)):
                module(image)


@native_only
@torch.no_grad()
def test_shortcuts_that_do_not_fit_at_some_size_are_refused_as_by_the_network() -> None:
    network = Net(lambda net, x: net.a(x) + net.b(F.avg_pool2d(x, 2)), a=conv(3, 8, 3, 2), b=conv(3, 8, 1))
    for module in (network, fuse(network)):
        assert module(torch.rand(2, 3, 64, 96)).shape == (2, 8, 32, 48)
        with pytest.raises((RuntimeError, ValueError)):
            module(torch.rand(2, 3, 65, 97))


@native_only
@torch.no_grad()
def test_norms_with_tiny_scales_are_no_nan() -> None:
    norm = nn.BatchNorm2d(8)
    network, image = (
        nn.Sequential(conv(3, 8), nn.Sigmoid(), norm, conv(8, 8)).eval(),
        torch.rand(2, 3, 33, 45),
    )
    shaken(network)
    norm.weight[:] = torch.tensor([1, 1e-3, 1e-10, 1e-20, 1e-30, 1e-38, 1e-42, -1e-44])
    assert_same(fuse(network)(image), network(image))


@native_only
@torch.no_grad()
def test_what_was_measured_for_another_layer_is_used_only_where_it_is_possible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(AUTOTUNER, "get", lambda case: "onednn")
    image = torch.rand(2, 3, 64, 96)
    for layer in (SamePaddedConv2d(3, 8, 3, 2), nn.Sequential(conv(3, 8, 3, 2), nn.Hardtanh(-0.1, 0.2))):
        network = nn.Sequential(layer).eval()
        assert_same(fuse(network)(image), network(image))
