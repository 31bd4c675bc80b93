"""Peak memory of the dense network and of methods, every one in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from foveal.benchmark.contenders import AdaptiveContender
from foveal.benchmark.memory import peak_mb
from foveal.benchmark.runtimes import Precision, fold_norms
from foveal.benchmark.runtimes.pytorch import eager
from foveal.benchmark.task import Task
from foveal.calibration.engine import find_engine
from foveal.hub.checkpoint import load_model, save_model
from foveal.methods import AdaptiveSegmenter, CompiledMethod, MethodConfig
from foveal.ops import classify
from foveal.program.quantise import Scales


@dataclass(frozen=True)
class Peaks:
    """What one run takes at its peak [MB].

    Attributes:
        dense: The dense network in eager PyTorch.
        methods: Adaptive rows.
    """

    dense: float
    methods: tuple[float, ...]


@dataclass(frozen=True)
class _Asked:
    """What a process of its own is told about a row."""

    name: str
    config: MethodConfig
    precision: Precision
    scales: Scales | None


def measure_peaks(task: Task, contenders: Sequence[AdaptiveContender]) -> Peaks:
    """Measure what one run takes at its peak.

    Args:
        task: Network, images, and whether the allocator keeps freed memory.
        contenders: Adaptive rows.
    """
    asked = [_Asked(c.name, c.config, c.precision, c.engine.scales) for c in contenders]
    model = task.model
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(model.network, model.card, folder / "model", half=False, parts=model.parts)
        save_file({"image": task.image.contiguous()}, folder / "image.safetensors")
        dense = peak_mb(_load_dense, folder, keep=task.keep)
        return Peaks(dense, tuple(peak_mb(_load_method, folder, row, keep=task.keep) for row in asked))


def _load_dense(folder: Path) -> Callable[[], Tensor]:
    """Load what was saved, for one run of the dense network."""
    runtime = eager(fold_norms(load_model(folder / "model.safetensors").network))
    image = runtime.lay(load_file(folder / "image.safetensors")["image"])
    size = (image.shape[2], image.shape[3])
    return lambda: classify(runtime.run(image), size)


def _load_method(folder: Path, asked: _Asked) -> Callable[[], Tensor]:
    """Load what was saved, for one run of the method."""
    engine = find_engine(load_model(folder / "model.safetensors"), asked.precision, asked.scales)
    method = AdaptiveContender(asked.name, engine, asked.config).make()
    image = load_file(folder / "image.safetensors")["image"].clone(memory_format=torch.channels_last)
    return partial(_labels, method, image)


def _labels(method: AdaptiveSegmenter, image: Tensor) -> Tensor:
    """Run once; a program would keep its memory for the next run, which would seem to take none."""
    labels = method.labels(image)
    if isinstance(method, CompiledMethod):
        method.program.release()
    return labels
