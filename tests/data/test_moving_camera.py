"""A video of a camera that turns."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from foveal.data.dataset import open_dataset
from foveal.data.moving_camera import MovingCamera
from foveal.data.static_camera import static_camera
from samples import write_folder

SIZE = (144, 192)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> MovingCamera:
    data = open_dataset(f"folder:{write_folder(tmp_path_factory.mktemp('streets'), 6, SIZE)}")
    return MovingCamera(static_camera(data, frames=60, parts=1), speed=(1, 5))


def test_frames_are_a_window_of_the_still_ones_with_their_labels(clip: MovingCamera) -> None:
    assert len(clip) == 60 and "moving camera" in clip.name and clip.classes == clip.still.classes
    for index in (0, 7, 30, 59):
        image, labels = clip[index]
        row, column = clip.place(index)
        whole, exact = clip.still[index]
        assert image.shape == (3, 96, 128) and labels.shape == (96, 128)
        assert torch.equal(image, whole[:, row : row + 96, column : column + 128])
        assert torch.equal(labels, exact[row : row + 96, column : column + 128])


def test_the_window_turns_back_at_the_edges(clip: MovingCamera) -> None:
    places = [clip.place(k) for k in range(60)]
    rows, columns = zip(*places, strict=True)
    assert max(rows) <= 48 and max(columns) <= 64 and min(rows) == min(columns) == 0
    assert columns[12:15] == (60, 63, 58)
    assert {abs(b - a) for a, b in pairwise(rows)} == {1}
    whole = MovingCamera(clip.still, share=1.0)
    assert whole.place(9) == (0, 0) and torch.equal(whole[9][0], clip.still[9][0])


def test_frames_end(clip: MovingCamera) -> None:
    with pytest.raises(IndexError):
        clip[60]
