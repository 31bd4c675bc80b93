"""How far a whole picture has moved."""

from __future__ import annotations

import numpy as np
import pytest

from foveal.geometry.motion import LARGEST, Grey, Shift, global_shift, shifted


def scenery(size: tuple[int, int], seed: int = 0) -> Grey:
    """Draw a picture with large and small structure."""
    random = np.random.default_rng(seed)
    found = np.zeros(size, np.float32)
    for cell in (4, 16, 64):
        coarse = random.random((size[0] // cell + 1, size[1] // cell + 1), dtype=np.float32)
        found += np.kron(coarse, np.ones((cell, cell), np.float32))[: size[0], : size[1]]
    return found / 3


def views(size: tuple[int, int], shift: Shift, noise: float = 0.0) -> tuple[Grey, Grey]:
    """Look at a larger picture from two places."""
    rim = 80
    whole = scenery((size[0] + 2 * rim, size[1] + 2 * rim))
    places = ((rim, rim), (rim - shift[0], rim - shift[1]))
    before, after = (whole[row : row + size[0], column : column + size[1]] for row, column in places)
    random = np.random.default_rng(1)
    return before, after + noise * random.standard_normal(size).astype(np.float32)


@pytest.mark.parametrize("shift", [(0, 0), (0, 5), (-3, 0), (7, -11), (-20, 33), (1, 1)])
@pytest.mark.parametrize("size", [(120, 160), (97, 131)])
def test_a_picture_that_moves_by_whole_pixels_is_found(size: tuple[int, int], shift: Shift) -> None:
    assert global_shift(*views(size, shift)) == shift
    assert global_shift(*views(size, shift, noise=0.02)) == shift


def test_large_pictures_are_found_to_their_step() -> None:
    before, after = views((2 * LARGEST - 200, 2 * LARGEST), (-12, 30))
    assert global_shift(before, after) == (-12, 30)


def test_what_moves_before_a_still_ground_is_no_motion_of_the_camera() -> None:
    before = scenery((120, 160))
    after = before.copy()
    after[40:80, 60:100] = before[40:80, 50:90]
    assert global_shift(before, after) == (0, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2)])
def test_pictures_without_structure_and_tiny_ones_do_not_move(size: tuple[int, int]) -> None:
    flat = np.full(size, 0.5, np.float32)
    assert global_shift(flat, flat) == (0, 0)
    assert global_shift(np.full((90, 90), 0.2, np.float32), np.full((90, 90), 0.4, np.float32)) == (0, 0)
    other = scenery(size)
    row, column = global_shift(other, scenery(size, 1))
    assert abs(row) < size[0] and abs(column) < size[1]


def test_maps_move_and_repeat_their_edge() -> None:
    values = np.arange(12).reshape(1, 3, 4)
    assert shifted(values, (1, 0))[0].tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7]]
    assert shifted(values, (0, -2))[0, 0].tolist() == [2, 3, 3, 3]
    assert shifted(values, (-9, 9))[0].tolist() == [[8] * 4] * 3
