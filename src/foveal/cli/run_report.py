"""Text and rows of `foveal train` before and after a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from foveal.data.dataset import Dataset
    from foveal.evaluation.rows import EvalRow
    from foveal.training.config import Recipe

Losses = Sequence[Mapping[str, "str | float"]]
"""Rows of `foveal.training.log.summary`: at, step, and every loss by its name."""


@dataclass(frozen=True)
class RunPlace:
    """Where a run starts and runs.

    Attributes:
        first: Step that it goes on with.
        epochs: Length of the run in epochs.
        device: Name of the device.
        processes: Number of processes.
    """

    first: int
    epochs: float
    device: str
    processes: int


@dataclass(frozen=True)
class RunRow:
    """A training run. In JSON a field whose default is None is left out while it is None.

    Attributes:
        run: Folder of the run.
        network: Name of the architecture.
        parameters: Number of parameters.
        trained_parameters: Number of those that are trained.
        data: Data set, KIND:PATH.
        split: Split that it is trained on.
        images: Number of images.
        classes: Number of classes.
        method: Name of the method, and of a policy that is trained.
        steps: Length of the run.
        resumed_from: Step that it goes on with.
        batch: Images per step.
        seed: Seed of all random numbers.
        epochs: Length of the run in epochs.
        device: Name of the device.
        processes: Number of processes.
        model: File of the trained model; once it is written.
        losses: Means of the losses at its start, quarter, half and end; once it ended.
        evaluation: Rows of the evaluation that the recipe asks for.
    """

    run: str
    network: str
    parameters: int
    trained_parameters: int
    data: str
    split: str
    images: int
    classes: int
    method: str
    steps: int
    resumed_from: int
    batch: int
    seed: int
    epochs: float
    device: str
    processes: int
    model: str | None = None
    losses: Losses | None = None
    evaluation: list[EvalRow] | None = None


def describe(recipe: Recipe, folder: Path, method: nn.Module, dataset: Dataset, place: RunPlace) -> RunRow:
    """Describe what a run will do."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in method.parameters()]
    policy = getattr(recipe.method, "policy", "")
    return RunRow(
        run=str(folder),
        network=recipe.model.name,
        parameters=sum(size for size, _ in sizes),
        trained_parameters=sum(size for size, trained in sizes if trained),
        data=recipe.data.train,
        split=recipe.data.split,
        images=len(dataset),
        classes=len(dataset.classes),
        method=f"{recipe.method.name} {policy}".strip(),
        steps=recipe.train.steps,
        resumed_from=place.first,
        batch=recipe.train.batch,
        seed=recipe.seed,
        epochs=place.epochs,
        device=place.device,
        processes=place.processes,
    )


def announcement(row: RunRow) -> str:
    """Write what a run will do in a few lines."""
    processes = f"{row.processes} process{'es' if row.processes > 1 else ''}"
    lines = {
        "network": f"{row.network}, {row.parameters / 1e6:.2f} M parameters, "
        f"{row.trained_parameters / 1e6:.2f} M of them trained",
        "data": f"{row.data}, {row.split}: {row.images} images, {row.classes} classes",
        "method": row.method,
        "length": f"{row.steps} steps of {row.batch} images, {row.epochs:.1f} epochs",
        "device": f"{row.device}, {processes}, seed {row.seed}",
        "run": f"{row.run}, from step {row.resumed_from}",
    }
    return "\n".join(f"{name:8} {text}" for name, text in lines.items())


def outcome(row: RunRow) -> str:
    """Write what a run gave: its losses on the way and, if it was evaluated, its quality."""
    from foveal.reporting.evaluation_text import evaluation_table

    parts = [_losses_table(row.losses)] if row.losses else []
    if row.evaluation is not None:
        parts.append(evaluation_table(row.evaluation))
    trust = " --trust-source" if ":" in row.network else ""
    see = f"foveal evaluate {row.run} --data {row.data}{trust}"
    return "\n\n".join([*parts, f"wrote {row.model}; see it with: {see}"])


def _losses_table(losses: Losses) -> str:
    from foveal.reporting.table import table

    names = [key for key in losses[-1] if key not in ("at", "step")]
    cells = [
        [str(row["at"]), str(row["step"]), *(f"{row[name]:.4g}" if name in row else "-" for name in names)]
        for row in losses
    ]
    return table(("at", "step", *names), cells)
