"""Peak memory of the dense network and of methods, every one in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from foveal.benchmark.memory import peak_mb
from foveal.benchmark.runtimes import fold_norms
from foveal.benchmark.runtimes.pytorch import eager
from foveal.fusion import faster
from foveal.hub.checkpoint import Model, load_model, save_model
from foveal.methods import METHODS, MethodConfig, Resources
from foveal.ops import classify


def measure_peaks(
    model: Model, image: Tensor, method: str, configs: Sequence[MethodConfig], keep: bool = True
) -> tuple[float, list[float]]:
    """Measure what one run takes at its peak [MB].

    Args:
        model: The network.
        image: [N, 3, H, W].
        method: Name in `foveal.methods.METHODS`.
        configs: Its settings, one set a row.
        keep: Whether the allocator keeps freed memory.

    Returns:
        That of the dense network in eager PyTorch, and one of every config.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(model.network, model.card, folder / "model", half=False, policy=model.policy)
        save_file({"image": image.contiguous()}, folder / "image.safetensors")
        dense = peak_mb(_load_dense, folder, keep=keep)
        return dense, [peak_mb(_load_method, folder, method, asked, keep=keep) for asked in configs]


def _load_dense(folder: Path) -> Callable[[], Tensor]:
    """Load what was saved, for one run of the dense network."""
    runtime = eager(fold_norms(load_model(folder / "model.safetensors").network))
    image = runtime.lay(load_file(folder / "image.safetensors")["image"])
    size = (image.shape[2], image.shape[3])
    return lambda: classify(runtime.run(image), size)


def _load_method(folder: Path, name: str, config: MethodConfig) -> Callable[[], Tensor]:
    """Load what was saved, for one run of the method."""
    model = load_model(folder / "model.safetensors")
    method = METHODS[name].from_config(faster(model.network), config, Resources(model.policy)).eval()
    image = load_file(folder / "image.safetensors")["image"].clone(memory_format=torch.channels_last)
    return partial(_labels, method, image)


def _labels(method: Callable[[Tensor], object], image: Tensor) -> Tensor:
    return method(image).labels  # type: ignore[attr-defined]
