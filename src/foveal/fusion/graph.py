"""Join the layers of a network: norms into convolutions, shortcuts and activations into their ends.

The network is traced into a graph (torch.fx), and every convolution takes in what comes directly before it
(a norm and an activation) and after it (norm, shortcut, norm, activation). What cannot be joined stays as it
is. The result is an ordinary module with the same call, for inference; the given network is not changed.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from foveal.fusion.join import join_all
from foveal.fusion.trace import Fused, Shapes, Tracer, attributes_of, simplify, without_overwriting

SAMPLE = 64
"""Side of the images that shapes and the answer are looked at with."""
ROUNDINGS, MOST = 1e4, 0.1
"""Roundings of the largest number that joined layers may be off, and the largest share of it."""


class CannotFuse(ValueError):
    """A network that cannot be traced, or whose traced graph gives another answer."""


def _where(error: BaseException) -> str:
    """Name the line of the network's own code that an error comes from; empty if there is none."""
    ours = str(Path(__file__).parent), str(Path(torch.__file__).parent)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
    return f" at {frames[-1].filename}:{frames[-1].lineno} `{frames[-1].line}`" if frames else ""


def _said(error: BaseException) -> str:
    """Say what went wrong, and what to do about it."""
    said = " ".join(str(error).split())[:200]
    if isinstance(error, fx.proxy.TraceError):
        return f"{said}; let it depend on sizes or settings only, or name its submodule in dense_modules"
    return said


def fuse(network: nn.Module, dense_modules: tuple[str, ...] | None = None) -> nn.Module:
    """Return a network with the same answer (up to rounding) and fewer passes over memory.

    Args:
        network: Module from images [N, 3, H, W] to logits; it is taken as in evaluation.
        dense_modules: Submodules that are left as they are, by name; the network's `dense_modules` if absent.

    Raises:
        CannotFuse: The network's control flow depends on values, or it relies on something else that is lost
            in a graph, or rounding errors grow in it: its answer for an image of 64 x 64 px is another one.
    """
    names = tuple(getattr(network, "dense_modules", ()) if dense_modules is None else dense_modules)
    kind = type(network).__name__
    try:
        root = copy.deepcopy(network).eval()
        image = _image(root)
        expected = _answer(root, image)
        graph = Tracer(names).trace(without_overwriting(root))
    except Exception as error:  # whatever a network does when it is given something else than an image
        raise CannotFuse(f"{kind} cannot be traced{_where(error)}: {_said(error)}") from error
    traced = Fused(root, graph, f"Fused{kind}")
    simplify(traced)
    if not _same(_answer(Shapes(traced).run, image), expected):  # it does the same, so not a bit differs
        raise CannotFuse(f"{kind} gives another answer once it is traced")
    join_all(traced)
    traced.eval().requires_grad_(False)
    traced.take(attributes_of(network))
    if not _same(_answer(traced, image), expected, ROUNDINGS):
        raise CannotFuse(f"{kind} gives another answer once its layers are joined")
    return traced


def faster(network: nn.Module, dense_modules: tuple[str, ...] | None = None) -> nn.Module:
    """Fuse a network if it can be traced; else return it as it is."""
    try:
        return fuse(network, dense_modules)
    except CannotFuse:
        return network


def _image(network: nn.Module) -> Tensor:
    """Draw two small images in the network's precision, with its `in_channels`, 3 if it does not say."""
    like = next(iter(network.parameters()), torch.empty(0))
    channels = getattr(network, "in_channels", 3)
    noise = torch.rand(2, channels, SAMPLE, SAMPLE, generator=torch.Generator().manual_seed(0))
    return noise.to(like)


@torch.no_grad()
def _answer(network: Callable[[Tensor], Any], image: Tensor) -> Any:
    return network(image.clone())


def _same(found: Any, expected: Any, roundings: float = 0) -> bool:
    """Whether two answers, tensors or structures of them, agree up to roundings of the largest number."""
    if isinstance(expected, dict):
        return all(_same(found[key], value, roundings) for key, value in expected.items())
    if isinstance(expected, list | tuple):
        return all(_same(x, y, roundings) for x, y in zip(found, expected, strict=True))
    if not isinstance(expected, Tensor):
        return bool(found == expected)
    if found.shape != expected.shape or not expected.is_floating_point():
        return torch.equal(found, expected)
    share = min(MOST, roundings * torch.finfo(expected.dtype).eps)
    return bool(((found - expected).abs() <= share * expected.abs().max()).all())
