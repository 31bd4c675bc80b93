from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Writer = Callable[..., Path]


@pytest.fixture
def write_image(tmp_path: Path) -> Writer:
    """Give a function that writes a grey RGB image below tmp_path."""

    def write(name: str, height: int = 2, width: int = 3) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (51, 51, 51)).save(path)
        return path

    return write


@pytest.fixture
def write_labels(tmp_path: Path) -> Writer:
    """Give a function that writes six ids as a label map of 2 rows and 3 columns below tmp_path."""

    def write(name: str, *ids: int, palette: bool = False) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.array(ids, dtype=np.uint8).reshape(2, 3))
        if palette:
            image.putpalette([level for index in range(256) for level in (index, 7, 9)])
        image.save(path)
        return path

    return write


@pytest.fixture
def noise() -> Image.Image:
    """Give an RGB image of random pixels, 40 high and 56 wide."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))


@pytest.fixture
def png_of() -> Callable[..., bytes]:
    """Give a function that encodes a greyscale PNG of any bit depth by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def encode(width: int, height: int, depth: int, rows: list[bytes]) -> bytes:
        header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
        pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
        signature = b"\x89PNG\r\n\x1a\n"
        return signature + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")

    return encode
