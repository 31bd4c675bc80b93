"""Many image files through one runner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from foveal.data.image import read_image
from foveal.inference.result import Result
from foveal.inference.runner import Runner


def segment_files(
    runner: Runner, paths: Iterable[Path], repeat: int = 0
) -> Iterator[tuple[Path, Result | ValueError | OSError]]:
    """Segment files one after the other; a file that fails is returned as its error."""
    for path in paths:
        try:
            yield path, runner(read_image(path), repeat)
        except (ValueError, OSError) as error:
            yield path, error
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "allocate memory" not in str(error):
                raise
            yield path, ValueError(f"{path} is too large for the memory of this machine; reduce the image")
