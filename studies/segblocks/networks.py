"""The networks of a study: given ones are loaded, missing ones are trained, each once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path

from foveal.data.dataset import open_dataset
from foveal.fusion import faster
from foveal.hub.checkpoint import Model, load_model
from foveal.models import MODELS
from foveal.policies import PolicyNet
from studies.segblocks.images import Images
from studies.segblocks.study import Study, Tools
from studies.segblocks.trainings import PolicySize, Trainings


class Networks:
    """Where experiments get networks and images from.

    Args:
        study: The settings.
        tools: What the layers above lend.
        report: Called with what is done next.

    Attributes:
        images: The images of the study.
    """

    def __init__(self, study: Study, tools: Tools, report: Callable[[str], None] = lambda text: None) -> None:
        self.study, self.tools, self.report = study, tools, report
        self.images = Images(study, report)
        self._trainings = Trainings(study, self.images, tools.train, report)
        self._load, self._fast = cache(self._loaded), cache(self._joined)  # every network once

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
        return self._trainings.from_nothing(target)

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
        size = PolicySize(block or self.study.block, *(shape or self.study.policy_shape))
        start = self._dense_name(seed, backbone)
        return self._trainings.policy(backbone, start, target, seed, size)

    def _dense_name(self, seed: int, backbone: str) -> str:
        """Return name or path of a dense network; train it if none was given."""
        given = self._given_dense(backbone)
        return given[seed % len(given)] if given else self._trainings.dense(backbone, seed)

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
            if model.part(PolicyNet) is None or "target" not in recipe.get("method", {}):
                raise ValueError(
                    f"--segblocks {path} was not trained with a learned policy; give it as --model, or train "
                    'one with [method] policy = "learned"'
                )
            if model.card.network == backbone:
                found.append((float(recipe["method"]["target"]), path))
        return found

    def _loaded(self, name: str) -> Model:
        model, classes = load_model(name), self.images.evaluated.classes
        if model.card.network not in MODELS or len(model.card.classes) != len(classes):
            raise ValueError(
                f"{name} knows {len(model.card.classes)} classes and {self.images.spec} has {len(classes)}; "
                "give a model that was trained on these classes"
            )
        return model

    def _joined(self, name: str) -> Model:
        model = self._load(name)
        return replace(model, network=faster(model.network))  # type: ignore[arg-type]
