"""The trainings inside a study: their recipes, and runs that are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from foveal.storage.atomic import write_atomically
from studies.segblocks.images import Images
from studies.segblocks.study import Study

Section = Mapping[str, str | int | float | bool | list[int]]
Recipe = Mapping[str, Section]
"""Sections of a recipe by name; the section without a name stands first."""

CURVE_STEPS = 300
"""Most steps of a training that only shows how the loss falls."""
STRIDE = 32
"""Sides of training views are multiples of the coarsest stride [px]."""


@dataclass(frozen=True)
class PolicySize:
    """Blocks [px] of a policy network, its channels and its layers."""

    block: int
    width: int
    depth: int


class Trainings:
    """Runs in a folder of a study, each trained once.

    Args:
        study: The settings.
        images: What is trained on.
        train: Trains what a recipe file says in a folder; returns the model's file.
        report: Called with what is done next.
    """

    def __init__(
        self,
        study: Study,
        images: Images,
        train: Callable[[Path, Path], Path],
        report: Callable[[str], None],
    ) -> None:
        self.study, self.images, self.train, self.report = study, images, train, report

    def dense(self, backbone: str, seed: int) -> str:
        """Train a dense network; return the model's path."""
        recipe = self._recipe(seed, {"name": backbone}, {"name": "dense"}, self.study.dense_steps)
        return self._run(f"{backbone}_dense_seed{seed}", recipe)

    def policy(self, backbone: str, start: str, target: float, seed: int, size: PolicySize) -> str:
        """Train a policy for a target on a network that stays as it is; return the model's path.

        Args:
            backbone: Architecture of the network.
            start: Name or path of the network.
            target: Share of the blocks at full resolution.
            seed: Of the training.
            size: Of the policy network.
        """
        method = {**_segblocks(target, size), "frozen": True}
        name = f"{backbone}_policy_{target:g}_block{size.block}_{size.depth}x{size.width}_seed{seed}"
        recipe = self._recipe(seed, {"name": backbone, "start": start}, method, self.study.policy_steps)
        return self._run(name, recipe)

    def from_nothing(self, target: float | None) -> Path:
        """Train the study's network from nothing, with a policy for a target or dense; return the run."""
        study = self.study
        size = PolicySize(study.block, *study.policy_shape)
        method: Section = {"name": "dense"} if target is None else _segblocks(target, size)
        kind = "dense" if target is None else f"joint_{target:g}"
        recipe = self._recipe(0, {"name": study.network}, method, min(study.dense_steps, CURVE_STEPS))
        return Path(self._run(f"{study.network}_{kind}_from_nothing", recipe)).parent

    def _recipe(self, seed: int, model: Section, method: Section, steps: int) -> Recipe:
        study = self.study
        crop = max(STRIDE, min(study.crop, *(side // STRIDE * STRIDE for side in self.images.size)))
        rate = 2e-3 if method["name"] == "dense" else 1e-3
        return {
            "": {"seed": seed},
            "model": model,
            "data": {"train": self.images.spec, "split": study.train_split, "crop": [crop, crop]},
            "method": method,
            "train": {"steps": steps, "batch": study.batch, "learning_rate": rate, "warmup": steps // 10},
        }

    def _run(self, name: str, recipe: Recipe) -> str:
        """Train in a run of this name, or take what such a run has left.

        Raises:
            ValueError: The run there is of another recipe.
        """
        folder = self.study.out / "runs" / name
        text, path = toml(recipe), folder / "recipe.toml"
        if path.exists() and path.read_text() != text:
            raise ValueError(f"{folder} holds a run of other settings; remove it, or give another --out")
        model = folder / "model.safetensors"
        if not model.exists():
            self.report(f"training {name}, {recipe['train']['steps']} steps")
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
            model = self.train(path, folder)
        return str(model)


def toml(recipe: Recipe) -> str:
    """Write sections of numbers, texts, switches and lists as TOML, which writes them as JSON does."""
    lines: list[str] = []
    for section, values in recipe.items():
        lines += [f"\n[{section}]"] if section else []
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _segblocks(target: float, size: PolicySize) -> Section:
    return {
        **{"name": "segblocks", "policy": "learned", "block": size.block, "tile": size.block // 2},
        **{"target": target, "policy_width": size.width, "policy_depth": size.depth},
    }
