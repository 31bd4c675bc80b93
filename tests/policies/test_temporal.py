from __future__ import annotations

import pytest
import torch

from foveal.policies import View
from foveal.policies.temporal import change, difference, differs, is_new_scene
from samples import error_of


@pytest.mark.parametrize("cell", [2, 6, 8, 32])
@pytest.mark.parametrize("size", [(33, 47), (1, 1), (64, 32)])
def test_a_still_picture_does_not_change(size: tuple[int, int], cell: int) -> None:
    image = torch.rand(2, 3, *size)
    expected = (2, -(-size[0] // cell), -(-size[1] // cell))
    assert differs(image, image, cell).shape == change(image, image, cell).shape == expected
    assert not differs(image, image, cell).any() and not change(image, image, cell).any()


def test_a_pixel_differs_in_its_cell_alone() -> None:
    image = torch.rand(1, 3, 40, 40)
    other = image.clone()
    other[0, 1, 17, 39] += 1 / 255
    assert differs(other, image, 16).nonzero().tolist() == [[0, 1, 2]]


def test_small_things_count_in_full_and_noise_hardly() -> None:
    image = torch.full((1, 3, 64, 64), 0.5)
    thing, noisy = image.clone(), image + 0.02 * torch.randn(image.shape)
    thing[:, :, 36:40, 36:40] = 0.9
    assert float(change(thing, image, 32)[0, 1, 1]) == pytest.approx(0.4)
    assert float(change(thing, image, 32)[0, 0, 0]) == 0
    assert float(change(noisy, image, 32).max()) < 0.025


def test_another_scene_is_told_from_motion_and_from_light() -> None:
    wave = torch.arange(96.0).div(12).sin().view(1, 1, 1, 96)
    image = (0.5 + 0.3 * wave * torch.arange(80.0).div(20).cos().view(1, 1, 80, 1)).expand(1, 3, 80, 96)
    assert not is_new_scene(image, image).any()
    assert not is_new_scene(image.roll(3, 3), image).any()
    assert not is_new_scene((image * 0.6), image).any()
    assert is_new_scene(1 - image, image).all()
    assert not is_new_scene(torch.zeros_like(image), torch.ones_like(image)).any()


def test_difference_needs_the_last_frame() -> None:
    image = torch.rand(1, 3, 8, 8)
    assert "memory" in error_of(lambda: difference(View(image)))
    assert torch.equal(difference(View(image, previous=image)), torch.zeros(1, 8, 8))
