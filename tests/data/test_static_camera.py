"""A video of a still camera, made of photos."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foveal.data.dataset import open_dataset
from foveal.data.static_camera import StaticCamera, static_camera
from foveal.storage.labels import VOID
from samples import error_of, write_folder

SIZE = (144, 192)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> StaticCamera:
    data = open_dataset(f"folder:{write_folder(tmp_path_factory.mktemp('streets'), 6, SIZE)}")
    return static_camera(data, frames=8, parts=2)


def test_only_what_moves_changes(clip: StaticCamera) -> None:
    assert len(clip) == 8 and clip.parts
    covered = torch.zeros(SIZE, dtype=torch.bool)
    for image, labels in (clip[k] for k in range(8)):
        differs = (image - clip.background).abs().amax(0) > 1 / 255
        moved = labels != clip.labels
        covered |= differs
        for row, column in moved.nonzero().tolist():
            assert any(labels[row, column] == part.label for part in clip.parts)
    assert 0 < float(covered.float().mean()) < 0.3


def test_labels_are_exactly_those_of_the_parts(clip: StaticCamera) -> None:
    part = clip.parts[-1]  # the one in front
    image, labels = clip[3]
    width = part.mask.shape[1]
    left = int((part.start + part.speed * 3) % (SIZE[1] + width)) - width
    for row, column in part.mask.nonzero().tolist():
        if 0 <= left + column < SIZE[1]:
            place = part.row + row, left + column
            assert int(labels[place]) == part.label
            expected = (part.pixels[:, row, column] * 255).round() / 255
            assert torch.equal(image[:, place[0], place[1]], expected)


def test_frames_are_always_alike_and_noise_is_of_every_frame(clip: StaticCamera) -> None:
    assert torch.equal(clip[2][0], clip[2][0])
    noisy = StaticCamera(**{**vars(clip), "noise": 0.02})
    assert torch.equal(noisy[2][0], noisy[2][0])
    assert float((noisy[2][0] - clip[2][0]).std()) == pytest.approx(0.02, rel=0.2)
    assert torch.equal(noisy[2][1], clip[2][1])


def test_frames_end(clip: StaticCamera) -> None:
    with pytest.raises(IndexError):
        clip[8]
    assert len(list(clip)) == 8


def test_void_never_moves_and_photos_without_things_are_refused(tmp_path: Path) -> None:
    from foveal.data.image import save_image, save_labels

    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for k in range(2):
        save_image(torch.rand(3, 40, 60), tmp_path / "images" / f"{k}.png")
        labels = torch.zeros(40, 60, dtype=torch.uint8)
        labels[5:8, 5:9] = VOID
        save_labels(labels, tmp_path / "masks" / f"{k}.png", [(0, 0, 0)])
    (tmp_path / "classes.json").write_text(
        '{"classes": ["road", "sky", "car"], "palette": [[0, 0, 0], [9, 9, 9], [5, 5, 5]]}'
    )
    data = open_dataset(f"folder:{tmp_path}")
    assert "nothing that could be moved" in error_of(lambda: static_camera(data))
