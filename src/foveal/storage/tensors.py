"""Reading tensors: safetensors files; damaged and hostile ones are refused in a sentence, and so is NaN.

What `torch.save` wrote is read too, by an unpickler that makes tensors and nothing else.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from foveal.storage.finite import check_finite
from foveal.storage.reading import shorten

MOST_BYTES = 1 << 33
"""Networks for segmentation have a tenth of it; a run's checkpoint has four numbers for one."""
MOST_TENSORS = 1 << 16
NESTED = "state_dict", "model_state_dict", "model"
"""Where training scripts keep the weights within what they save."""


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


def read_pickled(path: Path) -> dict[str, Any]:
    """Read the state dict in a file that `torch.save` wrote, without executing code of the file.

    PyTorch looks at no checksum, and believes how many numbers a tensor has.

    Raises:
        TypeError: It holds no state dict.
        ValueError: It is damaged, or holds more numbers than it has bytes for.
        Exception: Whatever the unpickler raises, which refuses all but tensors.
    """
    held = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > held:
                raise ValueError("it is packed; torch.save packs nothing")
            wrong = archive.testzip()
        if wrong:
            raise ValueError(f"its part {shorten(wrong, 40)} is damaged")
    state: Any = torch.load(path, map_location="cpu", weights_only=True)
    for key in NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise TypeError(f"it holds a {type(state).__name__}, no state dict")
    for name, value in state.items():
        if isinstance(value, Tensor) and (value.layout != torch.strided or value.nbytes > held):
            raise ValueError(f"'{shorten(name, 40)}' has more numbers than the file")
    return dict(state)
