"""Pictures that are changed and read: images of every format, masks, maps of labels, videos.

PNG carries checksums: what is accepted has the pixels of the file that was not changed. The other formats
carry none, and their decoders are the only ones there are: a picture in 0..1 of some size is all that can be
asked, but for .npy, whose numbers lie open.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from targets import Target
from torch import Tensor

from foveal.data.image import read_image, read_labels
from foveal.data.raster import read_raster
from foveal.inference.video import VideoFrame, open_sink, open_source
from foveal.inference.video.frames import Clock

PILLOW = {"jpg": "jpeg", "ppm": "ppm", "webp": "webp", "bmp": "bmp", "gif": "gif", "png": "png"}
FRAME = 48, 64
FRAMES = 6


def is_image(found: Tensor, data: bytes) -> None:
    assert found.ndim == 3 and len(found) == 3 and found.dtype == torch.float32
    assert bool(((found >= 0) & (found <= 1)).all())


def encoded(kind: str) -> bytes:
    values = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    file = io.BytesIO()
    if kind == "npy":
        np.save(file, values)
    elif kind == "tif":
        tifffile.imwrite(file, values.astype(np.uint16))
    else:
        Image.fromarray(values).save(file, PILLOW[kind])
    return file.getvalue()


def picture(folder: Path, suffix: str, agrees: Callable[[Any, bytes], None] = is_image) -> Target:
    path = folder / f"image.{suffix}"
    path.write_bytes(encoded(suffix))
    return Target(path, lambda: read_image(path), agrees)


def png(folder: Path) -> Target:
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(encoded("png"))))).permute(2, 0, 1) / 255

    def same_pixels(found: Tensor, data: bytes) -> None:
        assert torch.equal(found, pixels)

    return picture(folder, "png", same_pixels)


def npy(folder: Path) -> Target:
    def says_array(found: Tensor, data: bytes) -> None:
        said = np.load(io.BytesIO(data)).astype(np.float32)
        is_image(found, data)
        if said.shape[-1:] == (3,) and said.shape[:2] == found.shape[1:]:
            largest = 255 if np.load(io.BytesIO(data)).dtype.itemsize == 1 else said.max(initial=1)
            assert np.allclose(found.permute(1, 2, 0) * largest, said, atol=1e-3 * largest) or largest != 255

    return picture(folder, "npy", says_array)


def labels(folder: Path) -> Target:
    path, ids = folder / "labels.png", np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(ids).save(path)

    def same_ids(found: Tensor, data: bytes) -> None:
        assert np.array_equal(found, ids)

    return Target(path, lambda: read_labels(path), same_ids)


def mask(folder: Path) -> Target:
    path, wanted = folder / "mask.bmp", np.random.default_rng(0).random((40, 60)) < 0.5
    Image.fromarray(255 * wanted.astype(np.uint8)).save(path)

    def is_mask(found: Tensor, data: bytes) -> None:
        assert found.ndim == 2 and found.dtype == torch.bool

    return Target(path, lambda: read_raster(path).given(), is_mask)


def video(folder: Path) -> Target:
    pytest.importorskip("av")
    path, rate = folder / "video.mp4", Fraction(25)
    sink = open_sink(path, "overlay", ((128, 64, 128),), Clock(1 / rate, rate))
    pixels = np.random.default_rng(0).integers(0, 255, (FRAMES, *FRAME, 3), dtype=np.uint8)
    for k in range(FRAMES):
        sink.write(VideoFrame(pixels[k], k, k), torch.zeros(FRAME, dtype=torch.uint8))
    sink.close()

    def read() -> list[VideoFrame]:
        source = open_source(str(path))
        try:
            return list(source)
        finally:
            source.close()

    def are_frames(found: list[VideoFrame], data: bytes) -> None:
        assert 0 < len(found) <= FRAMES
        for frame in found:
            assert frame.pixels.ndim == 3 and frame.pixels.shape[2] == 3 and frame.pixels.dtype == np.uint8

    return Target(path, read, are_frames)


KINDS: dict[str, Callable[[Path], Target]] = {
    "png": png, "npy": npy, "labels": labels, "mask": mask, "video": video,
    "jpeg": partial(picture, suffix="jpg"), "tiff": partial(picture, suffix="tif"),
    "webp": partial(picture, suffix="webp"), "bmp": partial(picture, suffix="bmp"),
    "ppm": partial(picture, suffix="ppm"), "gif": partial(picture, suffix="gif"),
}  # fmt: skip
