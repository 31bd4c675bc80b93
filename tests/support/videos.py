"""Videos in tests."""

from __future__ import annotations

from pathlib import Path

from foveal.inference.video import VideoFrame, open_source


def read(path: Path) -> list[VideoFrame]:
    """Return all frames of a video."""
    source = open_source(str(path))
    try:
        return list(source)
    finally:
        source.close()
