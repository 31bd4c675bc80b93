"""Many image files through one runner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from foveal.data.masks import Masks
from foveal.data.raster import COLOUR, ImageFormat, read_raster
from foveal.inference.result import Result
from foveal.inference.runner import Runner


def segment_files(
    runner: Runner,
    paths: Iterable[Path],
    repeat: int = 0,
    reading: ImageFormat = COLOUR,
    masks: Masks | None = None,
) -> Iterator[tuple[Path, Result | ValueError | OSError]]:
    """Segment files one after the other; a file that fails is returned as its error.

    Args:
        runner: What segments an image.
        paths: Files.
        repeat: Timed rounds; 0 compares nothing.
        reading: How files become images.
        masks: Where the wanted pixels come from; all are wanted if absent.
    """
    for path in paths:
        try:
            raster = read_raster(path)
            wanted = None if masks is None else masks.of(raster)
            yield path, runner(raster.image(reading), repeat, wanted)
        except (ValueError, OSError) as error:
            yield path, error
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "allocate memory" not in str(error):
                raise
            yield path, ValueError(f"{path} is too large for the memory of this machine; reduce the image")
