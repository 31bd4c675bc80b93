"""The networks and images of a study: given ones are loaded, missing ones are trained, each once."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from foveal.data.dataset import Dataset, open_dataset
from foveal.fusion import faster
from foveal.hub.checkpoint import Model, load_model
from foveal.methods import SegBlocks
from foveal.models import MODELS
from foveal.policies import Learned
from studies.segblocks.scenes import write_scenes
from studies.segblocks.study import Study, Tools, work_of

TRAIN_SCENES, TEST_SCENES = 32, 24
"""Numbers of generated scenes, if there is no data set."""
CURVE_STEPS = 300
"""Most steps of a training that only shows how the loss falls."""


def spread(data: Dataset, count: int) -> Dataset:
    """Take images of a data set at equal distances; successive ones are often frames of one street."""
    total = len(data)
    count = min(count, total)
    return replace(data, pairs=tuple(data.pairs[k * total // count] for k in range(count)))


def single(data: Dataset, index: int) -> Dataset:
    """Take one image of a data set, as a data set."""
    return replace(data, pairs=(data.pairs[index],))


@dataclass(frozen=True, eq=False)
class Workshop:
    """Where the parts of a study get networks and images from.

    Attributes:
        study: The settings.
        tools: What the layers above lend.
        report: Called with what is done next.
    """

    study: Study
    tools: Tools
    report: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        for name in ("_load", "_fast"):  # every network once
            object.__setattr__(self, name, cache(getattr(self, name)))

    def check(self) -> None:
        """See that everything given can be used, before anything is trained.

        Raises:
            ValueError: A model or the data set does not exist or does not fit.
        """
        known = set(self.backbones)
        for path in self.study.segblocks:
            network = self._load(path).card.network
            if network not in known:
                raise ValueError(f"--segblocks {path} is a {network}, and no such --model is given; give one")
        for backbone in self.backbones:
            self._given_segblocks(backbone)
        if self.study.data and not (self.study.models and self.study.segblocks):
            open_dataset(self.study.data, self.study.train_split)

    @cached_property
    def spec(self) -> str:
        """Data set as KIND:PATH; street scenes are drawn if none was given."""
        if self.study.data:
            return self.study.data
        folder = self.study.out / "street"
        self.report(f"{TRAIN_SCENES + TEST_SCENES} street scenes")
        write_scenes(folder, {"train": TRAIN_SCENES, "test": TEST_SCENES}, self.study.scale)
        return f"folder:{folder}"

    @cached_property
    def data(self) -> Dataset:
        """Images that are evaluated."""
        data = open_dataset(self.spec, self.study.split if self.study.data else "test")
        return spread(data, self.study.limit or len(data))

    @cached_property
    def backbones(self) -> tuple[str, ...]:
        """Architectures of the dense networks, in the order they were given."""
        names = [self._load(name).card.network for name in self.study.models]
        return tuple(dict.fromkeys(names)) or (self.study.network,)

    def seeds(self, backbone: str | None = None) -> range:
        """Numbers of the repeats for an architecture: those given, or those that are trained."""
        given = self._given_dense(backbone or self.backbones[0])
        return range(max(len(given), self.study.seeds))

    def repeated(self, backbone: str) -> bool:
        """Whether the dense networks of an architecture are several."""
        return max(len(self._given_dense(backbone)) or self.study.seeds, 1) > 1

    def targets(self, backbone: str | None = None) -> tuple[float, ...]:
        """Targets of the given models of an architecture, largest first; else those that are trained."""
        found = {target for target, _ in self._given_segblocks(backbone or self.backbones[0])}
        return tuple(sorted(found, reverse=True)) or self.study.targets

    def dense(self, seed: int = 0, backbone: str | None = None) -> Model:
        """Return a dense network with its layers joined."""
        return self._fast(self._dense_name(seed, backbone or self.backbones[0]))

    def segblocks(self, target: float, seed: int = 0, backbone: str | None = None) -> Model:
        """Return a model that was trained with a policy for a target, or a policy trained here."""
        return self._fast(self._segblocks_name(target, seed, backbone or self.backbones[0]))

    def plain(self, target: float, seed: int = 0) -> Model:
        """Return the same model as it was trained, its layers not joined; a new one each time."""
        return load_model(self._segblocks_name(target, seed, self.backbones[0]))

    def policy(
        self, target: float, seed: int = 0, block: int | None = None, shape: tuple[int, int] | None = None
    ) -> Model:
        """Train a policy network of a width and depth for blocks [px] on a dense network left as it is."""
        return self._fast(self._policy_name(target, seed, self.backbones[0], block, shape))

    def from_nothing(self, target: float | None) -> Path:
        """Train the study's network from nothing, with a policy for a target or dense; return the run."""
        study = self.study
        method = (
            {"name": "dense"} if target is None else self._method(target, study.block, study.policy_shape)
        )
        steps = min(study.dense_steps, CURVE_STEPS)
        kind = "dense" if target is None else f"joint_{target:g}"
        name = f"{study.network}_{kind}_from_nothing"
        return Path(self._train(name, self._recipe(0, {"name": study.network}, method, steps))).parent

    def _segblocks_name(self, target: float, seed: int, backbone: str) -> str:
        given = [path for found, path in self._given_segblocks(backbone) if found == target]
        return given[seed % len(given)] if given else self._policy_name(target, seed, backbone)

    def _policy_name(
        self,
        target: float,
        seed: int,
        backbone: str,
        block: int | None = None,
        shape: tuple[int, int] | None = None,
    ) -> str:
        """Train a policy afterwards; return the model's path."""
        block, (width, depth) = block or self.study.block, shape or self.study.policy_shape
        method = {**self._method(target, block, (width, depth)), "frozen": True}
        name = f"{backbone}_policy_{target:g}_block{block}_{depth}x{width}_seed{seed}"
        start = self._dense_name(seed, backbone)
        recipe = self._recipe(seed, {"name": backbone, "start": start}, method, self.study.policy_steps)
        return self._train(name, recipe)

    def _method(self, target: float, block: int, shape: tuple[int, int]) -> dict[str, Any]:
        width, depth = shape
        method = {"name": "segblocks", "policy": "learned", "block": block, "tile": block // 2}
        return method | {"target": target, "policy_width": width, "policy_depth": depth}

    def _dense_name(self, seed: int, backbone: str) -> str:
        """Return name or path of a dense network; train it if none was given."""
        given = self._given_dense(backbone)
        if given:
            return given[seed % len(given)]
        recipe = self._recipe(seed, {"name": backbone}, {"name": "dense"}, self.study.dense_steps)
        return self._train(f"{backbone}_dense_seed{seed}", recipe)

    def _given_dense(self, backbone: str) -> list[str]:
        return [name for name in self.study.models if self._load(name).card.network == backbone]

    def _given_segblocks(self, backbone: str) -> list[tuple[float, str]]:
        """Targets and paths of the given models of an architecture.

        Raises:
            ValueError: A model was not trained with a policy.
        """
        found = []
        for path in self.study.segblocks:
            model = self._load(path)
            recipe = model.card.training.get("recipe", {})
            if model.policy is None or "target" not in recipe.get("method", {}):
                raise ValueError(
                    f"--segblocks {path} was not trained with a learned policy; give it as --model, or train "
                    'one with [method] policy = "learned"'
                )
            if model.card.network == backbone:
                found.append((float(recipe["method"]["target"]), path))
        return found

    def _recipe(
        self, seed: int, model: dict[str, Any], method: dict[str, Any], steps: int
    ) -> dict[str, dict[str, Any]]:
        study, stride = self.study, 32
        crop = max(stride, min(study.crop, *(side // stride * stride for side in self.size)))
        rate = 2e-3 if method["name"] == "dense" else 1e-3
        return {
            "": {"seed": seed},
            "model": model,
            "data": {"train": self.spec, "split": study.train_split, "crop": [crop, crop]},
            "method": method,
            "train": {"steps": steps, "batch": study.batch, "learning_rate": rate, "warmup": steps // 10},
        }

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the first image [px]."""
        image, _ = self.data[0]
        return image.shape[1], image.shape[2]

    def _train(self, name: str, recipe: dict[str, dict[str, Any]]) -> str:
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
            path.write_text(text)
            model = self.tools.train(path, folder)
        return str(model)

    def _load(self, name: str) -> Model:
        model = load_model(name)
        if model.card.network not in MODELS or len(model.card.classes) != len(self.data.classes):
            raise ValueError(
                f"{name} knows {len(model.card.classes)} classes and {self.spec} has "
                f"{len(self.data.classes)}; give a model that was trained on these classes"
            )
        return model

    def _fast(self, name: str) -> Model:
        model = self._load(name)
        return replace(model, network=faster(model.network))  # type: ignore[arg-type]


def learned(model: Model, budget: float | None = None) -> SegBlocks:
    """Run a model on blocks that its policy chooses, each of 2x2 tiles.

    Args:
        model: A model with a policy.
        budget: Share of the dense work, met exactly; None for the paper's rule, a probability above one half.
    """
    if model.policy is None:
        raise ValueError(f"{model.name} has no policy network; give a model that was trained with one")
    return SegBlocks(model.network, Learned(model.policy, model.policy.block // 2, budget)).eval()


def budget_of(model: Model, target: float) -> float:
    """Return the budget that pays for the decision, and for blocks at full resolution as the target says."""
    return min(1.0, work_of(target) + (model.policy.share if model.policy else 0.0))


def free(model: Model) -> Model:
    """Return the model with a policy that costs nothing in a budget, to compare policies by their choice."""
    policy = copy.deepcopy(model.policy)
    if policy is not None:
        policy.share = 0.0
    return replace(model, policy=policy)


def toml(recipe: dict[str, dict[str, Any]]) -> str:
    """Write sections of numbers, texts, switches and lists as TOML, which writes them as JSON does."""
    lines: list[str] = []
    for section, values in recipe.items():
        lines += [f"\n[{section}]"] if section else []
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
