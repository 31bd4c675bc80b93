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


@pytest.mark.parametrize("shift", [(0, 0), (0, 1), (-3, 0), (7, -11), (-20, 33), (1, 1)])
@pytest.mark.parametrize("size", [(120, 160), (97, 131)])
def test_a_picture_that_moves_by_whole_pixels_is_found(size: tuple[int, int], shift: Shift) -> None:
    assert global_shift(*views(size, shift)) == shift
    assert global_shift(*views(size, shift, noise=0.02)) == shift


@pytest.mark.parametrize("shift", [(60, 0), (0, 80), (45, 60)])
def test_half_a_picture_in_common_is_enough(shift: Shift) -> None:
    assert global_shift(*views((120, 160), shift)) == shift


def test_large_pictures_are_found_to_their_step() -> None:
    before, after = views((2 * LARGEST - 200, 2 * LARGEST), (-12, 30))
    assert global_shift(before, after) == (-12, 30)


def smooth(picture: Grey, width: int) -> Grey:
    """Take means along both axes."""
    for axis in (0, 1):
        picture = sum(np.roll(picture, k, axis) for k in range(-width, width + 1)) / (2 * width + 1)
    return picture.astype(np.float32)


def apart(before: Grey, after: Grey, shift: Shift) -> float:
    """Return the mean difference of what two pictures have in common."""
    rows, columns = (
        slice(max(0, by), side + min(0, by)) for by, side in zip(shift, before.shape, strict=True)
    )
    return float(np.abs(shifted(before, shift) - after)[rows, columns].mean())


@pytest.mark.parametrize(
    ("size", "width", "shift"),
    [
        ((128, 100), 3, (-9, -31)),
        ((128, 100), 8, (-9, 27)),
        ((128, 100), 8, (11, 27)),
        ((100, 128), 3, (11, -31)),
        ((100, 128), 3, (-23, -5)),
    ],
)
def test_of_a_large_smooth_picture_no_shift_beside_is_better(
    size: tuple[int, int], width: int, shift: Shift, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveal.geometry.motion.LARGEST", 64)
    before, after = (smooth(view, width) for view in views(size, shift))
    row, column = global_shift(before, after)
    small, even = (before[::2, ::2], after[::2, ::2]), (row // 2, column // 2)
    around = [(even[0] + y, even[1] + x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    assert (row % 2, column % 2) == (0, 0)
    assert min(around, key=lambda near: apart(*small, near)) == even


@pytest.mark.parametrize(("size", "shift"), [((1, 700), (0, 24)), ((700, 1), (24, 0))])
def test_lines_move_along_themselves(size: tuple[int, int], shift: Shift) -> None:
    assert global_shift(*views(size, shift)) == shift


def test_the_first_line_counts() -> None:
    before = np.full((9, 40), 0.5, np.float32)
    before[0] = np.random.default_rng(0).random(40)
    assert global_shift(before, np.roll(before, 5, axis=1)) == (0, 5)
    assert global_shift(before.T, np.roll(before, 5, axis=1).T) == (5, 0)


def test_a_camera_that_darkens_as_it_moves_is_found() -> None:
    before, after = views((120, 160), (7, -11))
    assert global_shift(before, after - np.float32(5)) == (7, -11)


def test_four_pixels_are_too_few() -> None:
    stripes = np.array([[0, 1], [0, 1]], np.float32)
    assert global_shift(stripes, 1 - stripes) == (0, 0)


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
