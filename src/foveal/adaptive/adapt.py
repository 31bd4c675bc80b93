"""Make an adaptive model of anyone's network."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from torch import nn

from foveal.adaptive.model import AdaptiveModel
from foveal.adaptive.preprocess import as_preprocess, find_preprocess
from foveal.adaptive.probe import NetworkShape, find_shape
from foveal.adaptive.source import Source, find_source
from foveal.adaptive.spec import Specification
from foveal.adaptive.survey import fit_tiles
from foveal.calibration.engine import PRECISIONS
from foveal.data.pairs import default_palette
from foveal.methods import METHODS
from foveal.methods.parts import words_of
from foveal.models.adapters import recognise
from foveal.storage.finite import check_finite, mask_buffers
from foveal.storage.given import WrongType
from foveal.storage.names import find
from foveal.storage.reading import shorten
from foveal.storage.schema import MOST_LEVEL, MOST_TILE

TILE, LEVEL = 32, 2
"""Side of a tile [px], unless the network's coarsest stride is larger; level of the first pass."""


def adapt(  # noqa: PLR0913
    network: nn.Module,
    *,
    preprocess: Any = None,
    method: str = "coarse_to_fine",
    precision: str = "f32",
    classes: Sequence[str] = (),
    palette: Sequence[tuple[int, int, int]] = (),
    in_channels: int | None = None,
    dense_modules: Sequence[str] | None = None,
    tile: int | None = None,
    coarse_level: int | None = None,
    scale: float = 1.0,
    source: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    compile_now: bool = True,
    small: nn.Module | None = None,
) -> AdaptiveModel:
    """Make an adaptive model of a trained network; no data needed.

    The network is copied, run on small images, tried on tiles and compiled; `model.engine` says why not.

    Args:
        network: Module from images [N, C, H, W] to logits [N, K, h, w], to a dict or tuple that holds them
            (key "out" or "logits", else the first tensor of 4 dimensions), or to an object with `.logits`.
            One logit is the probability of class 1, by a sigmoid.
        preprocess: What images in 0..1 need: `Preprocess`, weights of torchvision, an image processor of
            transformers; what the network says if None.
        method: Name in `foveal.METHODS`.
        precision: "f32" or "bf16"; "int8" comes from `calibrate`.
        classes: Names of the classes.
        palette: Colour of every class, 0..255.
        in_channels: Channels of the images; those of the first convolution if None.
        dense_modules: Names of the submodules that must see the whole map; found by trying if None.
        tile: Side of a tile [px]; 32, or the network's coarsest stride if that is larger, if None.
        coarse_level: Level of the first pass; 2 if None.
        scale: Share of its sides that an image is shrunk to before all else, for networks that see best below
            full size; budgets stay shares of the whole image's work, and the dense network is at this scale.
        source: "module:function" that makes the network again from a file; its own config if it has one.
        arguments: Keyword arguments of that function, as JSON has them.
        compile_now: Whether it is compiled now, so that what cannot be had is said; else when it is used.
        small: A small trained network for the same classes, for method "model_select": a module as above, or
            an adaptive model where it needs other preprocessing than it says itself.

    Raises:
        ValueError: The network holds NaN or infinity, fails on a plain image, gives no logits, or cannot run
            on tiles; or an argument does not fit it. The message says what to do.
        TypeError: It is no module, or the preprocessing is none.
    """
    level = LEVEL if coarse_level is None else coarse_level
    _check(network, method, precision, level)
    find(method, METHODS, "method").Config(scale=scale)  # refuses one that cannot be
    network = _copy(network)
    given = find_preprocess(network) if preprocess is None else as_preprocess(preprocess)
    shape = find_shape(network, in_channels, given.multiple)
    given.per_channel(shape.in_channels)
    names, colours = _classes(shape, classes, palette)
    side = _tile(shape, tile)
    declared = tuple(getattr(network, "dense_modules", ()) if dense_modules is None else dense_modules)
    _check_names(network, declared)
    shape, mixing = fit_tiles(network, shape, given, declared, side, level)
    made_by = find_source(network) if source is None else Source(source, dict(arguments or {}))
    kept = next(known for known in PRECISIONS if known == precision)
    spec = Specification(
        type(network).__name__, shape, given, mixing, method, side, level, kept, names, colours, made_by
    )
    spec = replace(spec, scale=float(scale))
    model = AdaptiveModel(network, spec, small=_small(small, shape, names))
    if compile_now:
        _ = model.engine  # what cannot be had is said now, not with the first image
    return model


def _small(given: nn.Module | None, shape: NetworkShape, classes: Sequence[str]) -> AdaptiveModel | None:
    """Make an adaptive model of the small network.

    Raises:
        ValueError: It has other channels or classes than the large one, or cannot be adapted.
        TypeError: It is no module.
    """
    if given is None:
        return None
    if isinstance(given, AdaptiveModel):
        made = given
    else:
        made = adapt(given, method="dense", in_channels=shape.in_channels, compile_now=False)
    theirs = made.spec.shape
    if (theirs.classes, theirs.in_channels) != (shape.classes, shape.in_channels):
        raise ValueError(
            f"small has {theirs.in_channels} channels and {theirs.classes} classes, and the network "
            f"{shape.in_channels} and {shape.classes}; give two networks for the same images and classes"
        )
    if not isinstance(given, AdaptiveModel):
        made.spec = replace(made.spec, classes=tuple(classes))
    return made


def _check(network: Any, method: str, precision: str, level: int) -> None:
    """Refuse what does not depend on the network.

    Raises:
        TypeError: It is no module.
        ValueError: Its weights hold NaN or infinity, it gives no logits of pixels, or there is no such
            method, precision or level.
    """
    if not isinstance(network, nn.Module) or isinstance(network, AdaptiveModel):
        raise WrongType(f"network is {_what(network)}")
    check_finite(network.state_dict(), f"network {type(network).__name__}", masks=mask_buffers(network))
    if refusal := recognise(network).refusal:
        raise ValueError(refusal)
    if (part := find(method, METHODS, "method").needs) is not None:
        raise ValueError(
            f"method {method} needs {words_of(part)} trained with the network, which adapt has not; use the "
            f"method's class, or train a model with a recipe of method {method} (see recipes/)"
        )
    if precision not in ("f32", "bf16"):
        raise ValueError(
            f'precision is {precision}; give f32 or bf16, or call model.calibrate(images, precision="int8")'
        )
    if type(level) is not int or not 0 <= level <= MOST_LEVEL:
        raise ValueError(f"coarse_level is {level!r}; give a level from 0, full resolution, to {MOST_LEVEL}")


def _what(network: Any) -> str:
    """Say what was given for a network, and what to give."""
    if isinstance(network, type):
        name = network.__name__
        return f"the class {name}; give an instance, such as {name}() with its trained weights"
    kind = type(network).__name__
    if isinstance(network, str | PathLike):
        return (
            f"the {kind} {shorten(repr(network), 60)}; give a torch.nn.Module, such as "
            "foveal.load_model(name).network, or open a saved model with foveal.AdaptiveModel.from_pretrained"
        )
    if isinstance(network, Mapping):
        return f"a {kind}, perhaps of weights; make the torch.nn.Module, and network.load_state_dict(weights)"
    if isinstance(network, AdaptiveModel):
        return "an AdaptiveModel, which adapts already; give its network to make another one of it"
    if isinstance(getattr(network, "network", None), nn.Module):
        return f"a {kind}; give its network, a torch.nn.Module"
    return f"a {kind}; give a torch.nn.Module"


def _copy(network: nn.Module) -> nn.Module:
    """Copy a network, in evaluation mode; a program takes the place of what torch.compile made."""
    return copy.deepcopy(getattr(network, "_orig_mod", network)).eval()


def _tile(shape: NetworkShape, tile: int | None) -> int:
    """Return the side of a tile.

    Raises:
        ValueError: It is no multiple of the network's coarsest stride.
    """
    stride = shape.coarsest_stride
    if tile is None:
        return max(TILE, stride)
    if type(tile) is not int or tile > MOST_TILE:
        raise ValueError(f"tile is {tile!r}; give a whole number of pixels up to {MOST_TILE}")
    if tile < 1 or tile % stride:
        raise ValueError(
            f"tile is {tile} px and the network has stride {stride}; give a multiple of {stride}"
        )
    return tile


def _classes(
    shape: NetworkShape, classes: Sequence[str], palette: Sequence[tuple[int, int, int]]
) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    """Return a name and a colour for every class.

    Raises:
        ValueError: There are others than the network has.
    """
    count = shape.classes
    for what, given in (("classes", classes), ("palette", palette)):
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise ValueError(
                f"{what} is {shorten(repr(given), 60)}; give a list with an entry for every class"
            )
        if given and len(given) != count:
            pair = " (one logit: not, and yes)" if shape.outputs == 1 else ""
            raise ValueError(
                f"{what} has {len(given)} entries and the network {count} classes{pair}; give {count}"
            )
    names = tuple(map(str, classes)) or tuple(f"class {k}" for k in range(count))
    colours = [(int(r), int(g), int(b)) for r, g, b in palette or default_palette(count)]
    return names, tuple(colours)


def _check_names(network: nn.Module, names: tuple[str, ...]) -> None:
    """Refuse names of modules that the network does not have.

    Raises:
        ValueError: There is one.
    """
    known = dict(network.named_modules())
    for name in names:
        if name not in known:
            find(name, known, "module of the network")
