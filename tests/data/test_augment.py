from __future__ import annotations

import math
from random import Random

import pytest
import torch
from hypothesis import given, settings
from torch import Generator, Tensor

from foveal.data.augmentation import Augment
from foveal.storage.labels import VOID
from strategies import sources


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def places(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Image that holds its own coordinates, labels that hold the column."""
    y, x = ((torch.arange(n) + 0.5) / n for n in (height, width))
    image = torch.stack(
        [x.expand(height, width), y[:, None].expand(height, width), torch.zeros(height, width)]
    )
    return image, torch.arange(width).expand(height, width).to(torch.uint8)


def plain(crop: tuple[int, int], scale: float | tuple[float, float] = 1.0, flip: bool = False) -> Augment:
    scale = scale if isinstance(scale, tuple) else (scale, scale)
    return Augment(crop, scale, flip, jitter=0.0)


@settings(max_examples=60)
@given(source=sources())
def test_labels_stay_with_the_image(source: Random) -> None:
    """The image says which column it shows; the labels must agree to half a pixel of either."""
    height, width = source.randint(20, 60), source.randint(20, 60)
    crop = source.randint(16, 70), source.randint(16, 70)
    low = source.uniform(0.4, 2)
    augment = plain(crop, (low, source.uniform(low, 2.5)), flip=source.random() < 0.5)
    image, labels = augment(*places(height, width), seeded(source.randint(0, 10**6)))
    assert image.shape == (3, *crop)
    assert labels.shape == crop
    assert labels.dtype == torch.uint8
    inner = inside(labels != VOID)
    shown = image[0][inner] * width - 0.5
    error = (shown - labels[inner].float()).abs()
    assert error.numel() == 0 or error.max() <= 0.5 + 0.5 / min(1.0, low) + 0.05
    assert error.numel() < 50 or (shown - labels[inner].float()).mean().abs() <= 0.3


def inside(known: Tensor, rim: int = 4) -> Tensor:
    """Mark pixels that have no void and no edge nearby: there the image is blended with what lies outside."""
    padded = torch.nn.functional.pad(known.float()[None, None], (rim,) * 4)
    return -torch.nn.functional.max_pool2d(-padded, 2 * rim + 1, 1)[0, 0] > 0


def test_without_scale_the_view_is_a_window_of_the_image() -> None:
    image, labels = torch.rand(3, 40, 50), torch.randint(0, 9, (40, 50), dtype=torch.uint8)
    corners = set()
    for seed in range(60):
        view, target = plain((38, 47))(image, labels, seeded(seed))
        spots = [
            (y, x) for y in range(3) for x in range(4) if torch.equal(labels[y : y + 38, x : x + 47], target)
        ]
        assert len(spots) == 1
        (y, x) = spots[0]
        torch.testing.assert_close(view, image[:, y : y + 38, x : x + 47], rtol=0, atol=1e-6)
        corners.add((y, x))
    assert len(corners) == 12


def test_a_view_of_the_whole_image_is_the_image() -> None:
    image, labels = torch.rand(3, 32, 48), torch.randint(0, 9, (32, 48), dtype=torch.uint8)
    view, target = plain((32, 48))(image, labels, seeded(0))
    torch.testing.assert_close(view, image, rtol=0, atol=1e-6)
    assert torch.equal(target, labels)


def test_half_of_the_views_are_mirrored_image_and_labels_alike() -> None:
    image, labels = torch.rand(3, 32, 48), torch.randint(0, 9, (32, 48), dtype=torch.uint8)
    mirrored = 0
    for seed in range(100):
        view, target = plain((32, 48), flip=True)(image, labels, seeded(seed))
        flipped = torch.equal(target, labels.flip(1))
        assert flipped or torch.equal(target, labels)
        torch.testing.assert_close(view, image.flip(2) if flipped else image, rtol=0, atol=1e-6)
        mirrored += flipped
    assert 30 < mirrored < 70


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_what_lies_outside_is_void_and_of_mean_colour(scale: float) -> None:
    image = torch.full((3, 20, 30), 0.25)
    labels = torch.zeros(20, 30, dtype=torch.uint8)
    view, target = plain((40, 40), scale)(image, labels, seeded(1))
    torch.testing.assert_close(view, torch.full((3, 40, 40), 0.25), rtol=0, atol=1e-5)
    assert int((target == 0).sum()) == round(20 * scale) * round(30 * scale)
    assert int((target == VOID).sum()) == 40 * 40 - round(20 * scale) * round(30 * scale)


def test_void_of_the_labels_stays_void_and_no_label_is_invented() -> None:
    labels = torch.randint(0, 3, (40, 40), dtype=torch.uint8) * 3
    labels[10:30, 10:30] = VOID
    for seed in range(10):
        _, target = plain((32, 32), (0.5, 2.0), True)(torch.rand(3, 40, 40), labels, seeded(seed))
        assert set(target.unique().tolist()) <= {0, 3, 6, VOID}


def test_magnifications_cover_their_range_evenly_in_the_logarithm() -> None:
    """A ramp of brightness rises by 1 / (scale * width) a pixel."""
    image, labels = places(400, 400)
    augment = plain((40, 40), (0.5, 2.0))
    scales = []
    for seed in range(200):
        view, _ = augment(image, labels, seeded(seed))
        scales.append(1 / (400 * (view[0, 20, 30] - view[0, 20, 10]).item() / 20))
    logs = torch.tensor(scales).log2()
    assert -1.05 < logs.min() < -0.9
    assert 0.9 < logs.max() < 1.05
    assert abs(logs.mean().item()) < 0.15
    assert logs.std().item() == pytest.approx(2 / math.sqrt(12), abs=0.1)


def test_the_generator_alone_decides() -> None:
    image, labels = torch.rand(3, 50, 60), torch.randint(0, 9, (50, 60), dtype=torch.uint8)
    augment = Augment((32, 32))
    first = augment(image, labels, seeded(4))
    torch.manual_seed(99)
    second, other = augment(image, labels, seeded(4)), augment(image, labels, seeded(5))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])
    state = torch.get_rng_state()
    augment(image, labels, seeded(4))
    assert torch.equal(torch.get_rng_state(), state)


def test_jitter_changes_colours_not_places_and_stays_in_range() -> None:
    image, labels = torch.rand(3, 32, 32), torch.randint(0, 9, (32, 32), dtype=torch.uint8)
    before = image.clone(), labels.clone()
    brightness = []
    for seed in range(30):
        view, target = Augment((32, 32), (1.0, 1.0), False, jitter=0.5)(image, labels, seeded(seed))
        assert torch.equal(target, labels)
        assert 0 <= view.min() <= view.max() <= 1
        brightness.append(view.mean().item())
    assert max(brightness) - min(brightness) > 0.3
    assert torch.equal(image, before[0])
    assert torch.equal(labels, before[1])


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2)])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_tiny_images_and_wild_scales_give_views_of_the_size(size: tuple[int, int], scale: float) -> None:
    image, labels = Augment((32, 40), (scale, scale))(
        torch.rand(3, *size), torch.zeros(size, dtype=torch.uint8), seeded(0)
    )
    assert image.shape == (3, 32, 40)
    assert labels.shape == (32, 40)
    assert bool(image.isfinite().all())


def test_detail_finer_than_a_pixel_of_the_view_is_averaged() -> None:
    image = (torch.arange(128) % 2).float().expand(3, 128, 128).contiguous()
    view, _ = plain((32, 32), 1 / 3)(image, torch.zeros(128, 128, dtype=torch.uint8), seeded(0))
    assert view.std() < 0.25
