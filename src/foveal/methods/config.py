"""Settings of methods: values that the command line, recipes and reports read from one declaration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from foveal.geometry.plan import check_budget
from foveal.program.settings import Settings
from foveal.storage.schema import Level, Tile

M = TypeVar("M", bound=nn.Module)
SettingValue = int | float | str | tuple[float, ...] | None
"""What a setting may be; None leaves it to the method."""


LEAST_SCALE = 0.02
"""Smallest scale of an image's sides: of the largest images, a thumbnail is left."""


def setting(default: Any, description: str, low: float | None = None, high: float | None = None) -> Any:
    """Declare a setting of a method: the command line and `foveal methods` read it from here.

    Args:
        default: Value if none is given; a model's card or calibration profile comes before it.
        description: One line for people, units included.
        low: Least value allowed.
        high: Largest value allowed.
    """
    return field(default=default, metadata={"description": description, "low": low, "high": high})


@dataclass(frozen=True)
class MethodConfig:
    """Settings of a method. Every method has a frozen class of its own; what all have is here.

    Attributes:
        budget: Share of the dense work that may be spent, above 0 and at most 1.
        scale: Share of the image's sides that whole images are shrunk to first; 1 leaves them as they are.

    Raises:
        ValueError: A value is not allowed.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    unsaid: ClassVar[dict[str, Any]] = {}
    """Values of settings in records from before they existed."""

    budget: float = 0.4
    scale: float = field(
        default=1.0,
        kw_only=True,
        metadata={
            "description": "Share of its sides that the image is shrunk to first; 1 for the whole.",
            "low": LEAST_SCALE,
            "high": 1.0,
        },
    )

    def __post_init__(self) -> None:
        check_budget(self.budget)
        for name, (low, high) in bounds(type(self)).items():
            value = getattr(self, name)
            if value is not None and not (low <= value <= high):
                ends = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
                raise ValueError(f"{name} is {value:g}; give a value {ends}")

    @property
    def settings(self) -> dict[str, SettingValue]:
        """Declared settings by name."""
        return {name: getattr(self, name) for name in settings_of(type(self))}

    def whole(self, name: str, default: int = 0) -> int:
        """Return a setting that is a whole number; `default` if the method does not have it."""
        return int(getattr(self, name, default))

    @property
    def title(self) -> str:
        """Settings in words: "policy entropy, tile 32"; a scale of 1 changes nothing and is left out."""
        shown = {name: value for name, value in self.settings.items() if value is not None}
        if self.scale == 1:
            del shown["scale"]
        return ", ".join(f"{name} {value}" for name, value in shown.items())

    @property
    def adjustable(self) -> bool:
        """Whether a budget changes what runs."""
        return True

    @property
    def is_dense(self) -> bool:
        """Whether everything is computed at full resolution, of the image as it came in."""
        return self.scale == 1 and self.budget >= 1

    @property
    def reduced_by(self) -> int:
        """Level that whole images are reduced to before the network sees them; 0 if they are not."""
        return 0

    def program_run(self) -> Settings | None:
        """Return what a compiled program is asked for to run the method; None if programs do not have it."""
        return None

    @property
    def time_key(self) -> tuple[object, ...]:
        """Everything that a run's time depends on besides network, image size, scale and work."""
        return ()


def settings_of(kind: type[MethodConfig]) -> dict[str, Field[Any]]:
    """Return the declared settings of a method's config by name, those that all methods have last.

    The budget is not among them.
    """
    declared = [f for f in fields(kind) if "description" in f.metadata]
    return {f.name: f for f in sorted(declared, key=lambda f: f.kw_only is True)}


def bounds(kind: type[MethodConfig]) -> dict[str, tuple[float, float]]:
    """Return the least and the largest value of every bounded setting."""
    found = {}
    for name, f in settings_of(kind).items():
        low, high = f.metadata["low"], f.metadata["high"]
        if low is not None or high is not None:
            found[name] = (-math.inf if low is None else low, math.inf if high is None else high)
    return found


@dataclass(frozen=True)
class Resources:
    """What a method may use besides the network.

    Attributes:
        parts: What was trained with the network, by name of its kind (`methods/parts.py`).
        labels: True labels of the images [N, H, W]; only an oracle looks at them.
        small: A small network for the same classes, from images to logits; a method may ask it first.
    """

    parts: Mapping[str, nn.Module] = field(default_factory=dict)
    labels: Tensor | None = None
    small: nn.Module | None = None

    def part(self, kind: type[M]) -> M | None:
        """Return the part of a kind; None if there is none."""
        return next((part for part in self.parts.values() if isinstance(part, kind)), None)


@dataclass(frozen=True)
class Aim:
    """Training objective that all methods share.

    Attributes:
        class_weight: Weight of every class in the loss [K].
        hardest: Share of the pixels, the hardest, that count.
        seed: Seed of new parts, such as a policy network.
        small: A small network for the same classes, for a method that asks it first.
        steps: Length of the training, for what begins in its course; 0 if nobody said.
    """

    class_weight: Tensor | None = None
    hardest: float = 1.0
    seed: int = 0
    small: nn.Module | None = None
    steps: int = 0


class MethodTraining(BaseModel):
    """Section [method] of a recipe: what all methods have. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = "dense"
    """Name of the method."""
    tile: Tile = 32
    """Side of a tile that the trained model's card recommends [px]."""
    max_level: Level = 2
    """Coarsest level that the card recommends."""
    coarse_level: Level = 2
    """Level of a first pass that the card recommends."""

    @property
    def freezes_network(self) -> bool:
        """Whether the network stays as it is."""
        return False

    @property
    def trained_budget(self) -> float | None:
        """Budget that the method is evaluated at after training; None for that of its config."""
        return None
