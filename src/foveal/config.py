"""Recipes: one flat TOML file per claimed result. Configuration stops here: builders take plain arguments."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints


class RecipeError(ValueError):
    """Everything that is wrong with a recipe."""


@dataclass(frozen=True)
class ModelPart:
    """The network and what it starts from."""

    name: str = "swiftnet_rn18_s16"
    """Name in foveal.models.MODELS."""
    encoder_weights: str = ""
    """File of pretrained encoder weights; empty for none."""
    start: str = ""
    """Trained model (name, file or run) to start from; empty for none."""


@dataclass(frozen=True)
class DataPart:
    """Images, labels and their augmentation."""

    train: str = "camvid:data/camvid"
    """Data set to train on, KIND:PATH."""
    split: str = "train"
    """Split to train on."""
    scenes: int = 0
    """Number of generated street scenes to mix in."""
    scenes_share: float = 0.0
    """Share of the places in a batch that they fill."""
    crop: tuple[int, int] = (384, 384)
    """Height and width of a training view [px]."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest magnification."""
    jitter: float = 0.3
    """Largest relative change of brightness, contrast and saturation."""


@dataclass(frozen=True)
class MethodPart:
    """How the network runs while it is trained."""

    name: str = "dense"
    """dense, or segblocks for random plans (mixed resolution)."""
    tiles: tuple[int, ...] = (32, 64)
    """Sides of a tile to draw from [px]."""
    coarsest: int = 2
    """Coarsest level of the random plans."""
    budgets: tuple[float, float] = (0.2, 0.8)
    """Budgets of the random plans; 1 and above means full resolution."""
    consistency: float = 0.0
    """Weight of drawing the answer on tiles to the dense one."""
    tile: int = 32
    """Side of a tile that the trained model's card recommends [px]."""
    look: int = 2
    """Level of the first look that the card recommends."""


@dataclass(frozen=True)
class TrainPart:
    """Length, speed and aim."""

    steps: int = 4000
    """Optimiser steps."""
    batch: int = 8
    """Images a step."""
    learning_rate: float = 6e-4
    """Peak learning rate of new layers."""
    encoder_factor: float = 0.25
    """Learning rate of the encoder, as a share of that."""
    weight_decay: float = 1e-2
    """Decoupled weight decay."""
    warmup: int = 150
    """Steps until the peak."""
    average: float = 0.999
    """Decay of the moving average of the weights."""
    class_balance: float = 0.5
    """Exponent of the class weights: 0 counts pixels, 1 classes."""
    hardest: float = 1.0
    """Share of the pixels, the hardest, that count."""
    freeze_norms: bool = False
    """Whether the statistics of the norms stay as they are."""
    bf16: bool = False
    """Whether to compute in bfloat16 (fast where the processor has it)."""
    device: str = "cpu"
    """Where to compute."""


@dataclass(frozen=True)
class Recipe:
    """All that determines a training run."""

    seed: int = 0
    """Seed of everything random."""
    model: ModelPart = field(default_factory=ModelPart)
    data: DataPart = field(default_factory=DataPart)
    method: MethodPart = field(default_factory=MethodPart)
    train: TrainPart = field(default_factory=TrainPart)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def read_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply `section.key=value` overrides.

    Raises:
        RecipeError: The file cannot be read, or has problems; all of them are listed.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: no readable recipe ({error})") from None
    problems: list[str] = []
    for override in overrides:
        _override(values, override, problems)
    recipe = _build(Recipe, values, "", problems)
    if recipe is not None and not problems:
        problems += _check(recipe)
    if recipe is None or problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise RecipeError(f"{path}: {count}\n" + "\n".join(f"  {problem}" for problem in problems))
    return recipe


def _override(values: dict[str, Any], override: str, problems: list[str]) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        problems.append(f"--set {override}   give section.key=value")
        return
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, name = key.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            problems.append(f"--set {override}   {section} is no section; give section.key=value")
            return
    values[name] = value


def _build(kind: Any, values: dict[str, Any], prefix: str, problems: list[str]) -> Any:
    """Make a dataclass of plain values; collect problems instead of stopping at the first."""
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    arguments = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in known:
            close = get_close_matches(key, known, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
            problems.append(f"{name}   unknown; {hint}")
        elif is_dataclass(hints[key]):
            if isinstance(value, dict):
                arguments[key] = _build(hints[key], value, f"{name}.", problems)
            else:
                problems.append(f"{name}   is a section; give its keys")
        else:
            arguments[key] = _value(hints[key], value, name, problems)
    return kind(**arguments) if not problems else None


def _value(hint: Any, value: Any, name: str, problems: list[str]) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        many = arguments[-1] is Ellipsis
        if isinstance(value, list) and (many or len(value) == len(arguments)):
            return tuple(_value(arguments[0], item, name, problems) for item in value)
        problems.append(f"{name}   is {value!r}; give a list{'' if many else f' of {len(arguments)}'}")
        return None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    kinds = arguments if origin is UnionType else (hint,)
    if not any(type(value) is kind for kind in kinds):
        problems.append(f"{name}   is {value!r}; give a {getattr(hint, '__name__', hint)}")
    return value


def _check(recipe: Recipe) -> list[str]:
    """Find values that no run could use."""
    train, data, method = recipe.train, recipe.data, recipe.method
    tests = [
        (train.steps < 1, f"train.steps   is {train.steps}; give at least 1"),
        (train.batch < 1, f"train.batch   is {train.batch}; give at least 1"),
        (not train.learning_rate > 0, f"train.learning_rate   is {train.learning_rate}; give more than 0"),
        (not 0 <= train.average < 1, f"train.average   is {train.average}; give 0 to below 1"),
        (not 0 < train.hardest <= 1, f"train.hardest   is {train.hardest}; give above 0 to 1"),
        (min(data.crop) < 32, f"data.crop   is {list(data.crop)}; give sides of at least 32 px"),
        (not 0 < data.scale[0] <= data.scale[1], f"data.scale   is {list(data.scale)}; give 0 < low <= high"),
        (not 0 <= data.scenes_share <= 1, f"data.scenes_share   is {data.scenes_share}; give 0 to 1"),
        (data.scenes_share > 0 and data.scenes < 1, "data.scenes   is 0, but data.scenes_share is not"),
        (method.name not in ("dense", "segblocks"), f"method.name   is '{method.name}'; dense or segblocks"),
        (method.coarsest < 0, f"method.coarsest   is {method.coarsest}; give 0 or more"),
        (
            not method.tiles or min(method.tiles) < 1,
            f"method.tiles   is {list(method.tiles)}; give sides of at least 1 px",
        ),
        (
            not 0 < method.budgets[0] <= method.budgets[1],
            f"method.budgets   is {list(method.budgets)}; give 0 < low <= high",
        ),
    ]
    return [problem for wrong, problem in tests if wrong]
