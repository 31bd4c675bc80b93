"""What programs and methods gained for other people's networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

import foveal
from foreign import UNet, lively, picture
from foveal import tiles
from foveal.fusion import fuse
from foveal.geometry.plan import SKIP, Plan
from foveal.methods import CoarseToFine, Dense, SegBlocks
from foveal.policies import create_policy
from foveal.program import CoarseToFineRun, NotCompiled, PlannedRun, compile_network
from foveal.program.compile import compile_fused
from foveal.program.quantise import find_scales, in_bf16, in_int8


class Enlarged(nn.Sequential):
    """Windows side by side, then an enlargement as a module."""

    def __init__(self, pool: nn.Module, up: nn.Module) -> None:
        super().__init__(
            nn.Conv2d(3, 4, 3, padding=1), pool, nn.Conv2d(4, 4, 3, padding=1), up, nn.Conv2d(4, 3, 1)
        )


BILINEAR = nn.Upsample(scale_factor=2, mode="bilinear")


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.AvgPool2d(2),
        nn.MaxPool2d(3, 2, ceil_mode=True),  # at the lower and right edge over what there is
        nn.MaxPool2d(4, 2, 1),
        nn.AvgPool2d(4, 2, 1),
    ],
    ids=repr,
)
def test_pooling_to_a_share_of_the_sides_and_modules_that_enlarge_compile(pool: nn.Module) -> None:
    net, image = lively(Enlarged(pool, BILINEAR)), picture(size=(256, 384))
    program = compile_fused(fuse(net), multiple=2)
    found = program.run(image.numpy(), CoarseToFineRun(0.5), logits=True)
    expected = CoarseToFine(net, 0.5, 32, 1)
    expected.refinement = type(expected.refinement)(level_gain=(0.5, 1.0))
    with torch.no_grad():
        logits = expected(image).logits
    torch.testing.assert_close(
        torch.from_numpy(found.logits).permute(0, 3, 1, 2), logits, atol=1e-4, rtol=1e-4
    )


class Split(nn.Module):
    """Parts of a map's channels, each convolved with the sum of those before; one as it is."""

    def __init__(self, parts: Callable[[Tensor], Sequence[Tensor]]) -> None:
        super().__init__()
        self.parts, self.stem = parts, nn.Conv2d(3, 16, 3, 2, 1)
        self.each = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.head = nn.Sequential(BILINEAR, nn.Conv2d(16, 3, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Map images [N, 3, H, W] to logits at their size."""
        parts, out = self.parts(self.stem(image).relu()), list[Tensor]()
        for part, convolution in zip(parts, self.each, strict=False):
            out.append(convolution(part + out[-1] if out else part).relu())
        return self.head(torch.cat([*out, parts[-1]], 1))


@pytest.mark.parametrize(
    "parts",
    [lambda x: torch.split(x, 4, 1), lambda x: x.split([4, 4, 4, 4], dim=1), lambda x: x.chunk(4, -3)],
    ids=["split", "sizes", "chunk"],
)
def test_channels_that_are_split_compile(parts: Callable[[Tensor], Sequence[Tensor]]) -> None:
    net, image = lively(Split(parts)), picture(size=(160, 256))
    levels = torch.tensor([[1, 1, 0, 0, 2, 2, 2, 2]] * 2 + [[0, 0, 1, 1, 2, 2, 2, 2]] * 2 + [[0] * 8])[None]
    found = compile_network(net, multiple=2).run(image, PlannedRun(levels.numpy(), 32), logits=True).logits
    with torch.no_grad():
        expected = net(tiles.split(image, Plan(levels, 32, (160, 256)))).dense().permute(0, 2, 3, 1).numpy()
    assert abs(found - expected).max() / abs(expected).max() < 1e-4


@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.02), ("int8", 0.1)])
@pytest.mark.parametrize(
    "net",
    [
        Enlarged(nn.AvgPool2d(2), BILINEAR),
        Enlarged(nn.MaxPool2d(3, 2, ceil_mode=True), BILINEAR),
        Split(lambda x: x.chunk(4, 1)),
    ],
    ids=["means", "ceil", "split"],
)
def test_pooling_and_splitting_in_reduced_precision(net: nn.Module, precision: str, limit: float) -> None:
    program, image = compile_network(lively(net), multiple=2), picture(size=(160, 256)).numpy()
    made = in_bf16(program) if precision == "bf16" else in_int8(program, find_scales(program, [image], 0.0))
    for settings in (None, CoarseToFineRun(0.5)):
        exact, found = (each.run(image, settings, logits=True).logits for each in (program, made))
        assert abs(found - exact).max() / abs(exact).max() < limit


def test_a_batch_that_is_split_does_not_compile() -> None:
    with pytest.raises(NotCompiled, match="splits a map otherwise than by its channels"):
        compile_network(
            lively(Split(lambda x: [x[:, k : k + 4] + torch.split(x, 1, 2)[0][:, :4] for k in (0, 4, 8, 12)]))
        )


def test_a_slice_of_a_sequence_compiles() -> None:
    class Sliced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*Enlarged(nn.MaxPool2d(2), BILINEAR))

        def forward(self, image: Tensor) -> Tensor:
            return self.layers[1:](self.layers[0](image))

    net, image = lively(Sliced()), picture(size=(96, 128))
    found = torch.from_numpy(compile_network(net, multiple=2).run(image, logits=True).logits)
    with torch.no_grad():
        torch.testing.assert_close(found.permute(0, 3, 1, 2), net(image), atol=1e-4, rtol=1e-4)


def test_networks_coarser_than_a_usual_tile_compile() -> None:
    down = (nn.Conv2d(3 if k == 0 else 4, 4, 3, 2, 1) for k in range(6))
    up = nn.Upsample(scale_factor=64, mode="bilinear")
    net, image = lively(nn.Sequential(*down, nn.Conv2d(4, 3, 1), up)), picture(size=(512, 512))
    program = compile_network(net, multiple=64)
    with torch.no_grad():
        expected = net(image).permute(0, 2, 3, 1).numpy()
    found = program.run(image, logits=True)
    assert abs(found.logits - expected).max() / abs(expected).max() < 1e-4
    assert found.levels.shape == (1, 8, 8)
    for method in ("dense", "coarse_to_fine"):
        model = foveal.adapt(net, method=method)
        assert model.engine.program is not None
        assert model.spec.tile == 64
        assert torch.equal(model(image, budget=1.0).labels, torch.from_numpy(expected.argmax(3)))


@pytest.mark.parametrize(
    ("pool", "up", "says"),
    [
        (nn.MaxPool2d(2, ceil_mode=True), nn.Upsample(scale_factor=2, mode="bicubic"), "'3' is no bilinear"),
        (nn.MaxPool2d(2, 2, 1), BILINEAR, "another side than a map's by the stride"),
        (nn.AvgPool2d(2, ceil_mode=True), BILINEAR, "leaves what is outside of the map out"),
        (nn.MaxPool2d(2), BILINEAR, "another answer than the network on an image of 75x101"),
    ],
)
def test_what_programs_do_not_have_is_said(pool: nn.Module, up: nn.Module, says: str) -> None:
    with pytest.raises(NotCompiled, match=says):
        compile_network(lively(Enlarged(pool, up)))


def test_a_plan_without_what_is_not_wanted() -> None:
    levels = torch.tensor([[[1, 1, 0, 0], [1, 1, 0, 0], [2, 2, 2, 2], [2, 2, 2, 2]]], dtype=torch.int8)
    levels[:, 2:] = 1
    wanted = torch.zeros(1, 4, 4, dtype=torch.bool)
    wanted[0, 1, 1] = wanted[0, 0, 3] = True
    found = Plan(levels, 8, (32, 32)).only(wanted)
    assert found.levels[0, :2].tolist() == [[1, 1, SKIP, 0], [1, 1, SKIP, SKIP]]
    assert bool((found.levels[0, 2:] == SKIP).all())
    assert int(found.tiles) == 2


@pytest.mark.parametrize("method", ["coarse_to_fine", "segblocks"])
def test_methods_leave_out_what_is_not_wanted(method: str) -> None:
    net, image = lively(UNet()), picture(size=(128, 192), count=2)
    made = (
        CoarseToFine(net, 0.7, 16, 2)
        if method == "coarse_to_fine"
        else SegBlocks(net, create_policy("detail", 0.7, 16, 2))
    ).eval()
    wanted = torch.zeros(2, 8, 12, dtype=torch.bool)
    wanted[0, 2:4, 3:9] = wanted[1, :4] = True
    with torch.no_grad():
        found, whole = made.masked(image, wanted), made(image)
    assert (found.trace.work < whole.trace.work).all()
    levels = found.trace.levels
    assert levels is not None
    assert bool((levels[wanted] >= 0).all())
    assert bool((levels[0, 4:] == SKIP).all())
    with torch.no_grad():
        every = made.masked(image, torch.ones_like(wanted))
    assert torch.equal(every.logits, whole.logits)


def test_a_method_without_tiles_takes_no_mask() -> None:
    with pytest.raises(
        ValueError, match="Dense computes whole images and takes no mask; give coarse_to_fine"
    ):
        Dense(lively(UNet())).masked(picture(), torch.ones(1, 7, 9).bool())
