from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveal
from foreign import Strided, in_dict, in_object, in_tuple
from foveal.adaptive.opening import open_network
from foveal.compatibility import Comparison, Finding, MixedRun, NetworkReport, check
from foveal.cost import count_macs
from foveal.geometry.plan import Plan
from foveal.methods import SegBlocks
from foveal.models import MODELS, create_model
from foveal.policies import create_policy
from foveal.tiles import NoTileRule, TileTensor, split
from foveal.tiles.tensor import SURVEY

CHANNELS = 8
SMALL = 128, 128
"""An image in which attention takes a sixteenth of what it takes by default."""


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
    report = check(Network(), SMALL)
    found = {(finding.operation.split()[0], finding.module) for finding in report.findings}
    assert found >= {
        ("matmul", "attention"),
        ("flip", "context.mirror"),
    }
    assert {finding.module.split(".")[0] for finding in report.findings} == {"attention", "context"}
    assert "name 'attention' in dense_modules" in report.findings[0].remedy


def test_the_suggested_dense_modules_are_few_and_work() -> None:
    network = Network().eval()
    report = check(network, SMALL)
    assert report.dense_modules == ("attention", "context.mirror")
    assert report.equal
    method = SegBlocks(copy.deepcopy(network), create_policy("detail", 0.5), report.dense_modules).eval()
    with torch.no_grad():
        assert method(torch.rand(1, 3, 128, 128)).labels.shape == (1, 128, 128)


def test_the_network_is_left_as_it_is() -> None:
    network = Network().train()
    before = copy.deepcopy(network.state_dict())
    check(network, SMALL)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any("forward" in vars(module) for module in network.modules())


def test_no_survey_goes_on_afterwards() -> None:
    check(Network(), SMALL)
    assert SURVEY.get() is None
    tiles = split(torch.rand(1, 3, 64, 64), Plan.uniform(1, (64, 64), 32))
    with pytest.raises(NoTileRule, match="flip has no rule"):
        tiles.flip(3)


def test_a_call_in_the_networks_own_forward_cannot_run_dense() -> None:
    report = check(Rootless())
    assert report.findings == (Finding("flip", "", "Rootless"),)
    assert (report.dense_modules, report.comparisons, report.macs, report.equal) == (None, (), None, False)
    assert "submodule" in report.findings[0].remedy


def test_other_failures_are_findings_with_their_module() -> None:
    report = check(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), Breaking()))
    assert report.findings == (Finding("RuntimeError: give me a tensor", "1", "Breaking"),)
    assert report.dense_modules == ("1",)
    assert report.equal


@pytest.mark.parametrize("name", MODELS)
def test_the_architectures_have_only_rules(name: str) -> None:
    network = create_model(name, 5)
    report = check(network, (64, 96))
    assert report.findings == ()
    assert report.dense_modules == ()
    assert report.declared == network.dense_modules
    assert report.equal


def test_a_tile_that_does_not_stay_whole_is_a_finding_about_geometry() -> None:
    report = check(create_model("swiftnet_nano"), (64, 64), tile=33)
    first = report.findings[0]
    assert "with stride (2, 2) on tiles of 33 samples" in first.operation
    assert first.remedy == first.geometry == "choose a tile that is a multiple of the network's stride"
    assert report.dense_modules is None
    assert "does not run on tiles with this size and tile" in str(report)
    assert "dense_modules" not in str(report)


def test_an_image_that_patches_do_not_fill_is_a_finding_about_geometry() -> None:
    report = check(nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 5, 2, 2)), (132, 164))
    assert [finding.remedy for finding in report.findings] == ["pad the image to multiples of 8 px"]
    assert "dense_modules" not in str(report)


def test_pyramids_of_torchvision(torchvision: ModuleType) -> None:
    pyramid = torchvision.models.segmentation.deeplabv3.ASPP(CHANNELS, [2, 3, 4], CHANNELS)
    network = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, 2, 1), pyramid, nn.Conv2d(CHANNELS, 5, 1))
    report = check(network, (128, 160))
    assert report.dense_modules == ()
    assert report.equal


class Named(nn.Conv2d):
    def forward(self, image: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return OrderedDict(out=super().forward(image), aux=image)


def test_a_dictionary_is_noted() -> None:
    report = check(Named(3, 5, 3, padding=1), (64, 64))
    assert report.equal
    assert report.notes == ("of the OrderedDict it returns, ['out'] is taken for logits",)


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (in_dict, "dict it returns, ['out'] is taken for logits"),
        (in_tuple, "tuple it returns, [1] is taken for logits"),
        (in_object, "SimpleNamespace it returns, .logits is taken for logits"),
        (lambda x: {"aux": x * 2, "logits": [x]}, "dict it returns, ['logits'][0] is taken for logits"),
    ],
)
def test_logits_are_taken_from_where_models_take_them(wrap: Callable[[Tensor], Any], place: str) -> None:
    report = check(Strided(wrap=wrap), (64, 96))
    assert report.equal and report.notes == (f"of the {place}",)
    assert foveal.adapt(Strided(wrap=wrap), compile_now=False).spec.shape.outputs == 4


@pytest.mark.parametrize("wrap", [lambda x: x.flatten(2), lambda x: [x.flatten(2)], lambda x: {"out": None}])
def test_what_holds_no_logits_is_refused(wrap: Callable[[Tensor], Any]) -> None:
    with pytest.raises(ValueError, match=r"returns a .*; give one that returns logits \[N, K, H, W\]"):
        check(Strided(wrap=wrap), (64, 96))


def test_a_network_that_fails_by_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="fails on a plain image of 64x64"):
        check(nn.Conv2d(5, 4, 3), (64, 64), channels=3)


def nothing() -> int:
    return 3


@pytest.mark.parametrize(
    "name", ["test_check:missing", "no_such_module:f", "test_check:nothing", ":", "test_check:"]
)
def test_networks_that_do_not_exist_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"gives no network|returns 3|no model"):
        open_network(name)


def test_networks_are_found_by_python_path() -> None:
    assert type(open_network("test_check:Network")).__name__ == "Network"
    assert type(open_network("swiftnet_nano")).__name__ == "SegmentationNetwork"


# What is compared


class Resizing(nn.Module):
    """A decoder that takes sizes computed outside: the first defect that was ever silent."""

    def __init__(self, trusting: bool) -> None:
        super().__init__()
        self.body, self.up = nn.Conv2d(3, 5, 3, 2, 1), Fixed() if trusting else Bicubic()

    def forward(self, image: Tensor) -> Tensor:
        return self.up(self.body(image), image.shape[2], image.shape[3])


class Bicubic(nn.Module):
    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        return nn.functional.interpolate(x, (height, width), mode="bicubic")


class Fixed(nn.Module):
    """Right at level 0 only."""

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        large = nn.functional.interpolate(x, (height, width), mode="bilinear")
        return large * (1.0 if height > 100 or not isinstance(x, TileTensor) else 2.0)


def test_every_level_is_compared_at_two_sizes() -> None:
    report = check(Resizing(False), (128, 160))
    assert report.dense_modules == ("up",)
    assert report.equal
    assert [(c.size, c.level) for c in report.comparisons] == [
        *(((128, 160), level) for level in range(3)),
        *(((133, 173), level) for level in range(3)),
    ]
    assert len(report.mixed) == 4
    assert all(run.sound and run.scale > 0 for run in report.mixed)


def test_what_is_wrong_at_a_coarser_level_only_is_found() -> None:
    report = check(Resizing(True), (128, 160))
    assert report.dense_modules == ()
    assert [c.equal for c in report.comparisons[:3]] == [True, False, False]
    assert not report.equal
    assert "128x160 px, all tiles at level 0: equals the dense network" in str(report)
    assert "128x160 px, all tiles at level 1, 2: does NOT equal the dense network" in str(report)
    assert "import foveal" not in str(report)


class Whole(nn.Module):
    """Gets a row of tokens from a dense module, so nothing is a map of tiles any more."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Tokens()

    def forward(self, image: Tensor) -> Tensor:
        return self.attention(image).unflatten(2, (64, -1))


class Tokens(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).cumsum(2)


def test_logits_that_are_a_plain_tensor_are_found() -> None:
    """As of transformers whose backbone would run dense as a whole: there would be nothing to compose."""
    report = check(Whole(), (64, 64))
    assert "note: with dense_modules=('attention',) all before the logits runs dense" in str(report)
    assert report.dense_modules is None
    assert not report.equal


class Strict(nn.Module):
    """Takes multiples of 32 only, as many decoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        if isinstance(image, Tensor) and any(side % 32 for side in image.shape[2:]):
            raise RuntimeError(f"sides of {tuple(image.shape[2:])}")
        return self.body(image)


def test_sizes_that_the_network_itself_refuses_are_told() -> None:
    report = check(Strict(), (64, 96), tile=16)
    assert [c.size for c in report.comparisons if c.level == 0] == [(64, 96)]
    assert "the image reduced to 32x48: sides of (32, 48); give images of larger multiples" in str(report)
    assert report.equal


def test_what_patches_leave_of_a_reduced_image_is_told() -> None:
    """All of 96 px is filled by patches of 8, half of it is not: tiles keep what the dense network drops."""
    network = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 5, 2, 2))
    report = check(network, (72, 96), tile=8)
    assert report.equal
    assert [(c.level, c.equal) for c in report.comparisons if c.size == (72, 96)] == [(0, True), (1, False)]
    assert "72x96 px, level 1: conv2d with kernel (2, 2)" in str(report)
    assert "pad the image to multiples of 16 px" in str(report)
    found = network(split(torch.rand(1, 3, 72, 96), Plan.uniform(1, (72, 96), 8, 1)))
    assert found.dense().shape == (1, 5, 9, 12)


class Picky(nn.Module):
    """Fails on tiles of one size, for a reason of its own."""

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, TileTensor) and x.shape[2] > 66:
            raise RuntimeError("too many rows")
        return x * 2


def test_a_failure_at_the_ragged_size_is_no_success() -> None:
    report = check(Picky(), (64, 96))
    assert report.comparisons[0].equal
    assert "69x109 px, level 0: too many rows" in str(report)
    assert not report.equal


# What it costs


def test_the_share_of_the_dense_modules_and_the_gain_are_counted() -> None:
    network = Network().eval()
    report, image = check(network, (128, 128)), torch.rand(1, 3, 128, 128)
    whole = count_macs(lambda: network(image)).total
    part = count_macs(lambda: network.attention(torch.rand(1, CHANNELS, 32, 32))).total
    assert report.dense_share == pytest.approx(part / whole)
    assert report.dense_share < report.macs < 1
    plain = check(nn.Conv2d(3, 5, 3, padding=1))
    assert (plain.dense_share, plain.budget) == (0, 0.4)
    assert 0.4 < plain.macs < 0.55  # composing the logits costs something


def test_the_text_is_code_that_runs() -> None:
    report, network = check(Network(), (128, 128)), Network()
    text = str(report)
    assert "Network runs on tiles with dense_modules=('attention', 'context.mirror')" in text
    assert f"take {report.dense_share:.1%} of the MACs" in text
    assert f"at budget 0.4 it takes {report.macs:.2f} of the dense MACs" in text
    assert text.endswith(report.code)
    names = {"network": network, "images": torch.rand(1, 3, 128, 128)}
    exec(report.code, names)
    assert names["labels"].shape == (1, 128, 128)


def test_images_of_other_channels() -> None:
    assert check(nn.Conv2d(4, 5, 3, padding=1), channels=4).equal


def test_a_plan_that_fails_is_not_sound() -> None:
    bad = MixedRun((64, 64), False, None, 0.0, "it broke")
    good = Comparison((64, 64), 0, 1e-7, 1.0)
    report = NetworkReport("Net", 32, (), (), (), (good,), (bad,), 0.0, 0.4, 0.4)
    assert not report.equal
    assert "64x64 px, levels mixed: it broke" in str(report)
    influenced = MixedRun((64, 64), True, 0.1, 1.0)
    assert "images of a batch influence one another" in str(replace(report, mixed=(influenced,)))


@pytest.mark.parametrize("channels", [1, 3, 4, 12])
def test_images_have_the_channels_that_a_network_takes(channels: int) -> None:
    network = nn.Sequential(
        nn.Conv2d(channels, CHANNELS, 3, padding=1), nn.ReLU(), nn.Conv2d(CHANNELS, 2, 1)
    ).eval()
    assert foveal.check(network, SMALL).equal
    image = torch.rand(1, channels, 40, 56)
    with torch.no_grad():
        torch.testing.assert_close(foveal.fuse(network)(image), network(image))
    with pytest.raises(ValueError, match="fails on a plain image"):
        foveal.check(network, SMALL, channels=channels + 1)
