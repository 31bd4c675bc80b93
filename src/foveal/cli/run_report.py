"""What `foveal train` says before and after a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foveal.data.dataset import Dataset
    from foveal.training.config import Recipe


def describe(wanted: Recipe, folder: Path, first: int, method: Any, dataset: Dataset) -> dict[str, Any]:
    """Say what a run will do, for its first lines and for JSON."""
    trained = [parameter.numel() for parameter in method.parameters() if parameter.requires_grad]
    policy = getattr(wanted.method, "policy", "")
    return {
        "run": str(folder),
        "network": wanted.model.name,
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "trained_parameters": sum(trained),
        "data": wanted.data.train,
        "split": wanted.data.split,
        "images": len(dataset),
        "classes": len(dataset.classes),
        "method": f"{wanted.method.name} {policy}".strip(),
        "steps": wanted.train.steps,
        "resumed_from": first,
        "batch": wanted.train.batch,
        "seed": wanted.seed,
    }


def announcement(about: dict[str, Any]) -> str:
    """Write what a run will do in a few lines."""
    processes = f"{about['processes']} process{'es' if about['processes'] > 1 else ''}"
    lines = {
        "network": f"{about['network']}, {about['parameters'] / 1e6:.2f} M parameters, "
        f"{about['trained_parameters'] / 1e6:.2f} M of them trained",
        "data": f"{about['data']}, {about['split']}: {about['images']} images, {about['classes']} classes",
        "method": about["method"],
        "length": f"{about['steps']} steps of {about['batch']} images, {about['epochs']:.1f} epochs",
        "device": f"{about['device']}, {processes}, seed {about['seed']}",
        "run": f"{about['run']}, from step {about['resumed_from']}",
    }
    return "\n".join(f"{name:8} {text}" for name, text in lines.items())


def outcome(result: dict[str, Any]) -> str:
    """Say what a run gave: its losses on the way and, if it was evaluated, its quality."""
    from foveal.reporting.text import evaluation_table, table

    names = [key for key in (result["losses"] or [{}])[-1] if key not in ("at", "step")]
    cells = [
        (row["at"], str(row["step"]), *(f"{row[name]:.4g}" if name in row else "-" for name in names))
        for row in result["losses"]
    ]
    parts = [table(("at", "step", *names), cells)] if cells else []
    if "evaluation" in result:
        parts.append(evaluation_table(result["evaluation"]))
    see = f"foveal evaluate {result['run']} --data {result['data']}"
    return "\n\n".join([*parts, f"wrote {result['model']}; see it with: {see}"])
