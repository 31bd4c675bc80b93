"""Recipes: one flat TOML file per claimed result. Configuration stops here: builders take plain arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from foveal.methods import METHODS, MethodTraining, TrainableSegmenter
from foveal.storage.names import find, suggestion
from foveal.storage.reading import parse_toml, read_json, read_toml, shorten
from foveal.storage.schema import MOST_CHANNELS, Number

Pair = Field(strict=False)
"""TOML has lists where a recipe has pairs."""
Factor = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
CropSide = Annotated[int, Field(ge=32, le=8192)]
"""A view of 8192 x 8192 px takes 0.8 GB before the first layer."""
Magnification = Annotated[float, Field(ge=1 / 64, le=64)]
MOST_STEPS, MOST_BATCH = 10**8, 4096
"""A year of steps at three a second, and more images than a step of any machine."""


class RecipeError(ValueError):
    """A recipe that cannot be used; the message lists every problem."""


class Section(BaseModel):
    """A section of a recipe. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModelPart(Section):
    """The network and what it starts from."""

    name: str = "swiftnet_rn18_s16"
    """Name in foveal.models.MODELS, or module:function, which makes a network without arguments."""
    channels: Annotated[int, Field(ge=0, le=MOST_CHANNELS)] = 0
    """Channels of the images; 0 for 3, or for those of the first convolution of module:function."""
    classes: Annotated[int, Field(ge=0, le=255)] = 0
    """Logits; 0 for one per class of the data, 1 for a sigmoid where there are two classes."""
    encoder_weights: str = ""
    """File of pretrained encoder weights, or timm:NAME; empty for none."""
    start: str = ""
    """Trained model (name, file or run) to start from, or weights of module:function; empty for none."""


class DataPart(Section):
    """Images, labels and their augmentation."""

    train: str = "camvid:data/camvid"
    """Data set to train on, KIND:PATH."""
    split: str = "train"
    """Split to train on; "train+val" joins two."""
    classes: Annotated[tuple[str, ...], Pair] = ()
    """Names of the classes; those of the data set if absent."""
    range: Annotated[tuple[Number, ...], Pair] = ()
    """Values of image files that become 0 and 1, kept with the model; empty for those of the kind of file."""
    scenes: Annotated[int, Field(ge=0, le=MOST_STEPS)] = 0
    """Number of generated street scenes to mix in."""
    scenes_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the places in a batch that they fill."""
    crop: Annotated[tuple[CropSide, CropSide], Pair] = (384, 384)
    """Height and width of a training view [px]."""
    scale: Annotated[tuple[Magnification, Magnification], Pair] = (0.5, 2.0)
    """Smallest and largest magnification."""
    jitter: Factor = 0.3
    """Largest relative change of brightness, contrast and saturation."""
    colour: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest relative change of each colour channel, and of gamma."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.scale[1] < self.scale[0]:
            raise ValueError(f"scale is {list(self.scale)}; give 0 < low <= high")
        if self.range and not (len(self.range) == 2 and self.range[0] < self.range[1]):
            raise ValueError(f"range is {list(self.range)}; give two values, the lower one first, or none")
        if self.scenes_share and not self.scenes:
            raise ValueError(f"scenes_share is {self.scenes_share:g} of no scenes; give scenes, or 0")
        return self


class TrainPart(Section):
    """Length, speed and aim."""

    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 4000
    """Optimiser steps."""
    batch: Annotated[int, Field(ge=1, le=MOST_BATCH)] = 8
    """Images a step."""
    learning_rate: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 6e-4
    """Peak learning rate of new layers."""
    encoder_factor: Factor = 0.25
    """Learning rate of the encoder, as a share of that."""
    policy_factor: Factor = 1.0
    """Learning rate of what learns to decide (a policy, gates), as a share of that."""
    weight_decay: Factor = 1e-2
    """Weight decay of all but norms and biases; decoupled in adamw, part of the gradient in adam."""
    encoder_decay_factor: Factor = 1.0
    """Weight decay of the encoder, as a share of that."""
    optimiser: Literal["adamw", "adam"] = "adamw"
    """adamw or adam."""
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], Pair
    ] = (0.9, 0.999)
    """Its decays of the first and the second moment."""
    warmup: Annotated[int, Field(ge=0, le=MOST_STEPS)] = 150
    """Steps until the peak."""
    schedule_end: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Learning rate at the end, as a share of the peak."""
    save_every: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 250
    """Steps between checkpoints."""
    evaluate: str = ""
    """Split to evaluate on at the end; empty for none."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the moving average of the weights."""
    class_balance: Annotated[float, Field(ge=-8, le=8)] = 0.5
    """Exponent of the class weights: 0 counts pixels, 1 classes."""
    hardest: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the pixels, the hardest, that count."""
    freeze_norms: bool = False
    """Whether the statistics of the norms stay as they are."""
    bf16: bool = False
    """Whether to compute in bfloat16 (fast where the processor has it)."""
    device: str = "cpu"
    """Where to compute."""


class Recipe(Section):
    """Everything that determines a training run."""

    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of everything random."""
    model: ModelPart = ModelPart()
    data: DataPart = DataPart()
    method: SerializeAsAny[MethodTraining] = MethodTraining()
    """Keys of the method that is named; see its file."""
    train: TrainPart = TrainPart()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return self.model_dump(mode="json")


def training_of(name: str) -> type[MethodTraining]:
    """Return the keys of a method that can be trained.

    Raises:
        ValueError: There is no such method, or it cannot be trained.
    """
    trainable = {n: kind for n, kind in METHODS.items() if issubclass(kind, TrainableSegmenter)}
    return find(name, trainable, "trainable method").Training


def read_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply `section.key=value` overrides.

    Raises:
        RecipeError: The file cannot be read, or has problems; all of them are listed.
    """
    path = Path(path)
    values = read_toml(path, "readable recipe", RecipeError)
    problems: list[str] = []
    for override in overrides:
        _override(values, override, problems)
    return _checked(values, path, problems)


def stored_recipe(path: Path) -> Recipe:
    """Read a recipe that was written as JSON; keys that older versions did not write have their defaults.

    Raises:
        RecipeError: The file cannot be read, or has problems; all of them are listed.
    """
    values = read_json(path, "recipe", RecipeError)
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: no recipe (it holds something else)")
    return _checked(values, path, [])


def _checked(values: dict[str, Any], path: Path, problems: list[str]) -> Recipe:
    recipe = _validate(values, problems)
    if problems or recipe is None:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise RecipeError(f"{path}: {count}\n" + "\n".join(f"  {problem}" for problem in problems))
    return recipe


def _validate(values: dict[str, Any], problems: list[str]) -> Recipe | None:
    """Check the method's section by its own keys, then the rest; collect everything that is wrong."""
    given, method = values.get("method", {}), MethodTraining()
    if isinstance(given, dict):
        try:
            kind = training_of(str(given.get("name", "dense")))
            method = kind.model_validate(given)
        except ValidationError as error:
            problems += [_sentence(e, kind, "method") for e in error.errors()]
        except ValueError as error:
            problems.append(f"method.name   {error}")
        values = values | {"method": method}
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems += [_sentence(e, Recipe, "") for e in error.errors()]
        return None


def _sentence(error: Mapping[str, Any], kind: type[BaseModel], section: str) -> str:
    """Say where a value is wrong, what it is, and what to give."""
    place = [str(part) for part in error["loc"]]
    name = ".".join([*([section] if section else []), *place])
    if error["type"] == "extra_forbidden":
        for part in place[:-1]:
            inner = kind.model_fields[part].annotation
            kind = inner if isinstance(inner, type) else MethodTraining
        hint = suggestion(place[-1], kind.model_fields).strip() or f"known: {', '.join(kind.model_fields)}"
        return f"{name}   unknown; {hint}"
    if error["type"] == "value_error":
        return f"{name}   {error['ctx']['error']}"
    return f"{name}   is {shorten(repr(error['input']), 80)}; give {_wanted(error)}"


WANTED = {
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "less than {lt:g}",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "missing": "a value",
    "literal_error": "{expected}",
    "model_type": "a section with keys",
    "model_attributes_type": "a section with keys",
}
"""What to give instead, by pydantic's kinds of errors."""


def _wanted(error: Mapping[str, Any]) -> str:
    """Say what to give instead."""
    text = WANTED.get(error["type"])
    return text.format(**error.get("ctx", {})) if text else f"something else: {error['msg']}"


def _override(values: dict[str, Any], override: str, problems: list[str]) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        problems.append(f"--set {override}   give section.key=value")
        return
    try:
        value = parse_toml(f"value = {text}", "--set", "value")["value"]
    except ValueError:
        value = text
    *sections, name = key.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            problems.append(f"--set {override}   {section} is no section; give section.key=value")
            return
    values[name] = value
