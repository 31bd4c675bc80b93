"""Reading tensors: safetensors files; damaged and hostile ones are refused in a sentence, and so is NaN."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from foveal.storage.finite import check_finite
from foveal.storage.reading import shorten

MOST_BYTES = 1 << 33
"""Networks for segmentation have a tenth of it; a run's checkpoint has four numbers for one."""
MOST_TENSORS = 1 << 16


def read_tensors(
    path: str | Path, what: str, kind: type[ValueError] = ValueError, masks: Collection[str] = ()
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a safetensors file, and its metadata.

    Args:
        path: A regular file.
        what: What it should hold, in the plural: "weights", ...
        kind: Error to raise.
        masks: Names of tensors that may hold minus infinity.

    Raises:
        ValueError: It cannot be read, is too large, damaged or cut short, or holds NaN or infinity.
    """
    try:
        tensors, metadata = _read(Path(path))
    except Exception as error:  # the library's own, and what its types raise where a header makes no sense
        raise kind(f"{path}: damaged, or no {what} ({shorten(error)})") from None
    check_finite(tensors, path, kind, masks)
    return tensors, metadata


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise ValueError("there is no such file")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    with safe_open(str(path), "pt") as file:
        names = list(file.keys())
        if len(names) > MOST_TENSORS:
            raise ValueError(f"it has more than {MOST_TENSORS} tensors")
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
