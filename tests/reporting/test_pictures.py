from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from foveal.cost import Timing
from foveal.data.image import read_image, read_labels
from foveal.geometry.plan import SKIP, Plan
from foveal.geometry.plan import overlay as newest
from foveal.inference.result import level_shares
from foveal.inference.runner import Result
from foveal.reporting.pictures import (
    JPEG_LIMIT,
    colours,
    draw_plan,
    level_name,
    overlay,
    picture_files,
    save_pictures,
)

PALETTE = ((255, 0, 0), (0, 255, 0))


def pixels(picture: Image.Image) -> Tensor:
    assert picture.mode == "RGB"
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(*picture.size[::-1], 3)


def test_labels_take_their_colours_and_unknown_ones_are_black() -> None:
    labels = torch.tensor([[0, 1, 255]], dtype=torch.uint8)
    assert torch.equal(colours(labels, PALETTE), torch.tensor([[[1.0, 0, 0]], [[0, 1.0, 0]], [[0, 0, 0]]]))


def test_an_overlay_is_half_image_and_half_labels() -> None:
    image, labels = torch.rand(3, 4, 5), torch.ones(4, 5, dtype=torch.uint8)
    mixed = overlay(image, labels, PALETTE)
    torch.testing.assert_close(mixed, (image + colours(labels, PALETTE)) / 2)


def test_full_resolution_is_untouched_inside_its_borders() -> None:
    image = (torch.rand(3, 320, 384) * 255).round() / 255
    picture = pixels(draw_plan(image, torch.zeros(10, 12, dtype=torch.int8), 32))
    expected = (image * 255).round().to(torch.uint8).permute(1, 2, 0)
    inside = torch.ones(320, 384, dtype=torch.bool)
    inside[::32] = inside[:, ::32] = False
    assert torch.equal(picture[:320, :384][inside], expected[inside])
    assert bool((picture[32, 1:31] >= expected[32, 1:31]).all())


def test_coarser_tiles_show_means_and_every_level_has_its_tint() -> None:
    image = torch.rand(3, 320, 320)
    levels = torch.zeros(10, 10, dtype=torch.int8)
    levels[:4, :4], levels[:2, 4:6], levels[4:, :4] = 2, 1, SKIP
    picture = pixels(draw_plan(image, levels, 32)).long()
    block = picture[4:8, 8:12].reshape(-1, 3)
    assert bool((block == block[0]).all())
    grey = pixels(draw_plan(torch.full((3, 320, 320), 0.5), levels, 32)).long()
    full, half, quarter = grey[200, 200], grey[8, 136], grey[8, 8]
    assert full.tolist() == [128, 128, 128]
    assert half[2] > half[0]
    assert quarter.sum() < half.sum()
    assert len(grey[130:318, 2:126].reshape(-1, 3).unique(dim=0)) > 1  # hatched


def test_borders_follow_the_tiles() -> None:
    levels = torch.zeros(10, 10, dtype=torch.int8)
    levels[:4, :4] = 2
    picture = pixels(draw_plan(torch.zeros(3, 320, 320), levels, 32)).long().sum(-1)
    assert picture[16, 128] > picture[16, 120]  # right of the large tile
    assert picture[16, 64] == picture[16, 60]  # none within it
    assert picture[200, 64] > picture[200, 60]


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (40, 7), (2500, 130)])
def test_any_size_makes_a_readable_picture(size: tuple[int, int]) -> None:
    tile = 16
    levels = torch.zeros(-(-size[0] // tile), -(-size[1] // tile), dtype=torch.int8)
    picture = draw_plan(torch.rand(3, *size), levels, tile, "work 1.000")
    assert max(picture.size) >= 320
    assert max(picture.size) <= 2000


def test_shares_are_listed_finest_first() -> None:
    levels = torch.tensor([[SKIP, 2], [0, 0]])
    assert list(level_shares(levels).items()) == [(0, 0.5), (2, 0.25), (SKIP, 0.25)]
    assert [level_name(level) for level in (0, 1, 2, 3, SKIP)] == ["full", "half", "quarter", "1/8", "skip"]


def test_pictures_are_written(tmp_path: Path) -> None:
    image, labels = torch.rand(3, 64, 96), torch.ones(64, 96, dtype=torch.uint8)
    plan = Plan.uniform(1, (64, 96), 32, 1)
    result = Result(image, labels, plan.levels[0], 32, 0.3, 1, 2, Timing((1.0,)))
    files = save_pictures(result, PALETTE, tmp_path / "a.b")
    assert sorted(path.name for path in files.values()) == [
        "a.b_labels.png",
        "a.b_overlay.jpg",
        "a.b_plan.png",
    ]
    assert torch.equal(read_labels(files["mask"]), labels)
    assert read_image(files["overlay"]).shape == image.shape
    assert read_image(files["mask"])[:, 0, 0].tolist() == [0, 1, 0]


def test_sides_beyond_jpeg_are_written_as_png() -> None:
    assert picture_files(Path("a"), (1, JPEG_LIMIT + 1))["overlay"].name == "a_overlay.png"


def test_passes_lie_over_one_another() -> None:
    first = Plan.uniform(1, (64, 64), 32, 1)
    levels = torch.full((1, 2, 2), SKIP, dtype=torch.int8)
    levels[0, 0, 0] = 0
    second = Plan(levels, 32, (64, 64))
    assert newest([first, second])[0].tolist() == [[0, 1], [1, 1]]
