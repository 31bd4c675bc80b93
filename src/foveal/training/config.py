"""Recipes: one flat TOML file per claimed result. Configuration stops here: builders take plain arguments."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from math import inf
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from foveal.storage.names import suggestion

METHODS = ("dense", "segblocks", "coarse_to_fine")
DEEPEST = 10
"""Convolutions that a policy network has at most."""


class RecipeError(ValueError):
    """Everything that is wrong with a recipe."""


@dataclass(frozen=True)
class ModelPart:
    """The network and what it starts from."""

    name: str = "swiftnet_rn18_s16"
    """Name in foveal.models.MODELS."""
    encoder_weights: str = ""
    """File of pretrained encoder weights, or timm:NAME; empty for none."""
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
    colour: float = 0.0
    """Largest relative change of each colour channel, and of gamma."""


@dataclass(frozen=True)
class MethodPart:
    """How the network runs while it is trained."""

    name: str = "dense"
    """dense, segblocks, or coarse_to_fine."""
    policy: str = "random"
    """random plans (mixed resolution), or learned: a policy network, for segblocks."""
    tiles: tuple[int, ...] = (32, 64)
    """Sides of a tile to draw from [px]."""
    coarsest: int = 2
    """Coarsest level of the random plans."""
    budgets: tuple[float, float] = (0.2, 0.8)
    """Budgets of the random plans; 1 and above means full resolution."""
    consistency: float = 0.0
    """Weight of drawing the answer on tiles to the dense one."""
    block: int = 64
    """Side of a block that a learned policy decides about [px]."""
    target: float = 0.4
    """Share of the blocks that a learned policy should see closely."""
    gamma: float = 10.0
    """Weight of that aim against the loss of the blocks."""
    policy_weight: float = 4.0
    """Weight of the loss of the policy."""
    gradient: str = "reinforce"
    """reinforce, or expected for the same gradient with less noise."""
    policy_width: int = 64
    """Channels of the policy network."""
    policy_depth: int = 4
    """Convolutions of the policy network."""
    frozen: bool = False
    """Whether the network stays as it is, and only the policy learns."""
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
    policy_factor: float = 1.0
    """Learning rate of a learned policy, as a share of that."""
    weight_decay: float = 1e-2
    """Weight decay of all but norms and biases; decoupled in adamw, part of the gradient in adam."""
    encoder_decay_factor: float = 1.0
    """Weight decay of the encoder, as a share of that."""
    optimiser: str = "adamw"
    """adamw or adam."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Its decays of the first and the second moment."""
    warmup: int = 150
    """Steps until the peak."""
    schedule_end: float = 0.01
    """Learning rate at the end, as a share of the peak."""
    save_every: int = 250
    """Steps between checkpoints."""
    evaluate: str = ""
    """Split to evaluate on at the end; empty for none."""
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
    recipe: Recipe = _build(Recipe, values, "", problems)
    problems += _check(recipe)
    if problems:
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
    """Make a dataclass of plain values; collect problems, and leave what has one at its default."""
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    arguments = {}
    for key, value in values.items():
        name, before = f"{prefix}{key}", len(problems)
        if key not in known:
            hint = suggestion(key, known).strip() or f"known: {', '.join(known)}"
            problems.append(f"{name}   unknown; {hint}")
        elif is_dataclass(hints[key]):
            if isinstance(value, dict):
                arguments[key] = _build(hints[key], value, f"{name}.", problems)
            else:
                problems.append(f"{name}   is a section; give its keys")
        else:
            made = _value(hints[key], value, name, problems)
            if len(problems) == before:
                arguments[key] = made
    return kind(**arguments)


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
    return _check_data(recipe.data) + _check_method(recipe.method) + _check_train(recipe.train)


Checks = dict[str, tuple[bool, str]]
"""For a key, whether its value is wrong, and what to do."""


def _say(section: str, part: Any, checks: Checks) -> list[str]:
    values = {key: getattr(part, key) for key, (wrong, _) in checks.items() if wrong}
    shown = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    return [f"{section}.{key}   is {value!r}; {checks[key][1]}" for key, value in shown.items()]


def _check_data(part: DataPart) -> list[str]:
    checks: Checks = {
        "crop": (min(part.crop) < 32, "give sides of at least 32 px"),
        "scale": (not 0 < part.scale[0] <= part.scale[1], "give 0 < low <= high"),
        "colour": (not 0 <= part.colour < 1, "give 0 to below 1"),
        "scenes_share": (not 0 <= part.scenes_share <= 1, "give 0 to 1"),
        "scenes": (part.scenes < 1 and part.scenes_share > 0, "give at least 1, or scenes_share 0"),
    }
    return _say("data", part, checks)


def _check_method(part: MethodPart) -> list[str]:
    learned, depth = part.policy == "learned", min(max(part.policy_depth, 2), DEEPEST)
    stride, uneven = 2 ** (depth + 1), learned and part.block % max(1, 2 * part.tile) != 0
    checks: Checks = {
        "name": (part.name not in METHODS, "dense, segblocks or coarse_to_fine"),
        "policy": (
            part.policy not in ("random", "learned")
            or (learned and part.name in ("dense", "coarse_to_fine")),
            "random, or learned if method.name is segblocks",
        ),
        "tiles": (not part.tiles or min(part.tiles) < 1, "give sides of at least 1 px"),
        "coarsest": (part.coarsest < 0, "give 0 or more"),
        "budgets": (not 0 < part.budgets[0] <= part.budgets[1], "give 0 < low <= high"),
        "consistency": (not 0 <= part.consistency < inf, "give 0 or more"),
        "block": (part.block < 1 or part.block % stride != 0, f"give a multiple of {stride} px"),
        "target": (not 0 < part.target < 1, "give a share between 0 and 1"),
        "gamma": (not 0 <= part.gamma < inf, "give 0 or more"),
        "policy_weight": (not 0 < part.policy_weight < inf, "give more than 0"),
        "gradient": (part.gradient not in ("reinforce", "expected"), "reinforce or expected"),
        "policy_width": (part.policy_width < 1, "give at least 1"),
        "policy_depth": (part.policy_depth != depth, f"give 2 to {DEEPEST}; the stride is 2^(depth + 1) px"),
        "frozen": (part.frozen and not learned, "without a learned policy nothing would be trained"),
        "tile": (part.tile < 1 or uneven, "give at least 1; a policy's block holds 2x2, 4x4, ... tiles"),
        "look": (part.look < 0, "give 0 or more"),
    }
    return _say("method", part, checks)


def _check_train(part: TrainPart) -> list[str]:
    factors = ("encoder_factor", "policy_factor", "weight_decay", "encoder_decay_factor", "warmup")
    checks: Checks = {name: (not getattr(part, name) >= 0, "give 0 or more") for name in factors}
    checks |= {
        "steps": (part.steps < 1, "give at least 1"),
        "batch": (part.batch < 1, "give at least 1"),
        "learning_rate": (not part.learning_rate > 0, "give more than 0"),
        "average": (not 0 <= part.average < 1, "give 0 to below 1"),
        "hardest": (not 0 < part.hardest <= 1, "give above 0 to 1"),
        "optimiser": (part.optimiser not in ("adamw", "adam"), "adamw or adam"),
        "betas": (not all(0 <= beta < 1 for beta in part.betas), "give two of 0 to below 1"),
        "schedule_end": (not 0 <= part.schedule_end <= 1, "give 0 to 1"),
        "save_every": (part.save_every < 1, "give at least 1"),
    }
    return _say("train", part, checks)
