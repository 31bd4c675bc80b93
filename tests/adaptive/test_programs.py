"""What programs and methods gained for other people's networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from foreign import UNet, lively, picture
from foveal.fusion import fuse
from foveal.geometry.plan import SKIP, Plan
from foveal.methods import CoarseToFine, Dense, SegBlocks
from foveal.policies import create_policy
from foveal.program import CoarseToFineRun, NotCompiled, compile_network
from foveal.program.compile import compile_fused


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
