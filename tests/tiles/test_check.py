from __future__ import annotations

import copy
from collections import OrderedDict
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from foveal.geometry.plan import Plan
from foveal.hub.listing import find_network
from foveal.methods import SegBlocks
from foveal.models import MODELS, create_model
from foveal.policies import create_policy
from foveal.tiles import NoTileRule, split
from foveal.tiles.check import Finding, check_network
from foveal.tiles.tensor import SURVEY

CHANNELS = 8


class Attention(nn.Module):
    """Every sample looks at every other one."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.mix(x).flatten(2)
        weight = (rows.transpose(1, 2) @ rows).softmax(-1)
        return x + (rows @ weight).view(x.shape)


class Mirror(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(3)


class Context(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mirror = Mirror()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mirror(x)


class Network(nn.Module):
    """A network with everything that tiles cannot do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, CHANNELS, 3, 2, 1), nn.GroupNorm(2, CHANNELS), nn.Conv2d(CHANNELS, CHANNELS, 3, 2, 1)
        )
        self.attention = Attention()
        self.context = Context()
        self.head = nn.Conv2d(CHANNELS, 5, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.context(self.attention(self.stem(image))))


class Rootless(nn.Module):
    """A network that calls in its own forward what has no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.stem(image).flip(3)


class Breaking(nn.Module):
    """A module that fails where it is given tiles."""

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise RuntimeError("give me a tensor\nplease")
        return x * 2


def test_all_operations_without_a_rule_are_found_in_one_run() -> None:
    report = check_network(Network())
    found = {(finding.operation.split()[0], finding.module) for finding in report.findings}
    assert found >= {
        ("matmul", "attention"),
        ("flip", "context.mirror"),
    }
    assert {finding.module.split(".")[0] for finding in report.findings} == {"attention", "context"}
    assert "name 'attention' in dense_modules" in report.findings[0].remedy


def test_the_suggested_dense_modules_are_few_and_work() -> None:
    network = Network().eval()
    report = check_network(network)
    assert report.dense_modules == ("attention", "context.mirror")
    assert report.equal
    method = SegBlocks(copy.deepcopy(network), create_policy("detail", 0.5), report.dense_modules).eval()
    with torch.no_grad():
        assert method(torch.rand(1, 3, 128, 128)).labels.shape == (1, 128, 128)


def test_the_network_is_left_as_it_is() -> None:
    network = Network().train()
    before = copy.deepcopy(network.state_dict())
    check_network(network)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any("forward" in vars(module) for module in network.modules())


def test_no_survey_goes_on_afterwards() -> None:
    check_network(Network())
    assert SURVEY.get() is None
    tiles = split(torch.rand(1, 3, 64, 64), Plan.uniform(1, (64, 64), 32))
    with pytest.raises(NoTileRule, match="flip has no rule"):
        tiles.flip(3)


def test_a_call_in_the_networks_own_forward_cannot_run_dense() -> None:
    report = check_network(Rootless())
    assert report.findings == (Finding("flip", "", "Rootless"),)
    assert (report.dense_modules, report.difference, report.equal) == (None, None, False)
    assert "submodule" in report.findings[0].remedy


def test_other_failures_are_findings_with_their_module() -> None:
    report = check_network(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), Breaking()))
    assert report.findings == (Finding("RuntimeError: give me a tensor", "1", "Breaking"),)
    assert report.dense_modules == ("1",)
    assert report.equal


@pytest.mark.parametrize("name", MODELS)
def test_the_architectures_have_only_rules(name: str) -> None:
    report = check_network(create_model(name, 5), (64, 96))
    assert report.findings == ()
    assert report.dense_modules == ()
    assert report.declared == ("head.context",)
    assert report.equal


def test_a_tile_that_does_not_stay_whole_is_a_finding() -> None:
    report = check_network(create_model("swiftnet_nano"), (64, 64), tile=33)
    assert "multiple of the network's stride" in report.findings[0].operation


def test_pyramids_of_torchvision(torchvision: ModuleType) -> None:
    pyramid = torchvision.models.segmentation.deeplabv3.ASPP(CHANNELS, [2, 3, 4], CHANNELS)
    network = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, 2, 1), pyramid, nn.Conv2d(CHANNELS, 5, 1))
    report = check_network(network, (128, 160))
    assert report.dense_modules == ()
    assert report.equal


class Named(nn.Conv2d):
    def forward(self, image: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return OrderedDict(out=super().forward(image), aux=image)


def test_a_dictionary_is_noted() -> None:
    report = check_network(Named(3, 5, 3, padding=1), (64, 64))
    assert report.equal
    assert "OrderedDict" in report.notes[0]


def test_a_network_that_fails_by_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="fails on a plain image of 64x64"):
        check_network(nn.Conv2d(5, 4, 3), (64, 64))


def nothing() -> int:
    return 3


@pytest.mark.parametrize(
    "name", ["test_check:missing", "no_such_module:f", "test_check:nothing", ":", "test_check:"]
)
def test_networks_that_do_not_exist_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"gives no network|returns 3|no model"):
        find_network(name)


def test_networks_are_found_by_python_path() -> None:
    assert type(find_network("test_check:Network")).__name__ == "Network"
    assert type(find_network("swiftnet_nano")).__name__ == "SegmentationNetwork"
