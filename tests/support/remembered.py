"""What many tests compute alike is computed once in a process: whether a network runs on tiles."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from foveal.compatibility import NetworkReport, check

Judge = Callable[..., NetworkReport]


class _Contents(pickle.Pickler):
    """Writes tensors by what they hold: their pickled form has addresses."""

    def persistent_id(self, x: Any) -> Any:
        if not isinstance(x, Tensor):
            return None
        held = x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return str(x.dtype), str(x.device), tuple(x.shape), hashlib.sha256(held).digest()


def contents(value: Any) -> bytes | None:
    """Return the same bytes for values that hold the same; None for what cannot be pickled."""
    file = io.BytesIO()
    try:
        _Contents(file).dump(value)
    except Exception:  # classes of a test's own, functions without a name
        return None
    return file.getvalue()


class Remembered:
    """Judges a network as `check` does, and says the same of the same network, image and tile again.

    Its code is found by name, so a class that a test changes must not be judged before and after.
    """

    def __init__(self, judge: Judge = check) -> None:
        self.judge, self.known = judge, dict[bytes, NetworkReport]()

    def __call__(self, network: nn.Module, *arguments: Any) -> NetworkReport:
        key = contents((network, arguments))
        if key is None:
            return self.judge(network, *arguments)
        if key not in self.known:
            self.known[key] = self.judge(network, *arguments)
        return self.known[key]
