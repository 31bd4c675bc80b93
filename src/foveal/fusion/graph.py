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
from foveal.fusion.trace import (
    Fused,
    Shapes,
    Tracer,
    attributes_of,
    first_difference,
    place_of,
    simplify,
    without_overwriting,
)
from foveal.storage.channels import channels_of
from foveal.storage.given import need

SAMPLES = (2, 128, 192), (1, 192, 128)
"""Images N, and their sides H and W, that a network is traced with; graphs of both must be the same."""
ODD = (75, 101)
"""Sides of the image that joined layers are compared on [px]: no multiples of a stride."""
TRACED_ROUNDINGS, ROUNDINGS, MOST = 1e2, 1e4, 0.1
"""Roundings of the largest number that a traced network and joined layers may be off; the largest share."""


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


def fuse(
    network: nn.Module,
    dense_modules: tuple[str, ...] | None = None,
    multiple: int = 1,
    separate: tuple[str, ...] | None = None,
) -> nn.Module:
    """Return a network with the same answer (up to rounding) and fewer passes over memory.

    Args:
        network: Module from images [N, C, H, W] to logits; it is taken as in evaluation.
        dense_modules: Submodules that are left as they are, by name; the network's `dense_modules` if absent.
        multiple: Sides of images that will come are multiples of it [px].
        separate: Submodules that keep their names, so that they can be called one by one: layers are joined
            within each, and none across. The network's `separate_modules` if absent.

    Raises:
        CannotFuse: What the network does depends on the values of maps, or on sizes in a way that a graph
            cannot say, or it relies on something else that is lost in a graph, or rounding errors grow in
            it: its answer is another one, for an image of 128 x 192 px or of odd sides.
    """
    need(network, nn.Module, "network", "a torch.nn.Module from images to logits")
    names = tuple(getattr(network, "dense_modules", ()) if dense_modules is None else dense_modules)
    apart = separate_modules(network) if separate is None else separate
    try:
        return _fuse(network, names, apart, multiple, opened=True)
    except CannotFuse:  # layers that pad by the sides that they are given stay as they are
        return _fuse(network, names, apart, multiple, opened=False)


def separate_modules(network: nn.Module) -> tuple[str, ...]:
    """Name the submodules of a network that are called one by one."""
    return tuple(getattr(network, "separate_modules", ()))


def trace(network: nn.Module, dense_modules: tuple[str, ...] | None = None, multiple: int = 1) -> Fused:
    """Write a network as a graph that calls the network's own modules, layers not joined; for training too.

    Nodes know the shapes of their maps, for an image of 128 x 192 px.
    Activations of the network stop overwriting their inputs, since a graph may run them at another time, and
    dropout is left out.

    Args:
        network: Module from images [N, C, H, W] to logits.
        dense_modules: Submodules that become one node, by name; the network's `dense_modules` if absent.
        multiple: Sides of images that will come are multiples of it [px].

    Raises:
        CannotFuse: As of `fuse`.
    """
    names = tuple(getattr(network, "dense_modules", ()) if dense_modules is None else dense_modules)
    names += separate_modules(network)
    traced, (image, _) = _traced_alike(network, names, multiple, opened=False)
    Shapes(traced).run(image)
    own = copy.copy(without_overwriting(network))  # constants of the graph are kept beside the modules
    for node in traced.graph.nodes:
        if node.op == "get_attr" and not hasattr(own, str(node.target)):
            setattr(own, str(node.target), getattr(traced, str(node.target)))
    made = Fused(own, traced.graph, f"Traced{_name(network)}")
    made.take(attributes_of(network))
    simplify(made)
    made.recompile()
    return made


def _traced_alike(
    network: nn.Module, names: tuple[str, ...], multiple: int, opened: bool
) -> tuple[Fused, tuple[Tensor, Any]]:
    """Return the graph of a network for images of any size; and an image, with the network's answer."""
    image, other = (_image(network, *sample, multiple) for sample in SAMPLES)
    traced, expected = _traced(network, names, image, opened)
    differs = first_difference(traced, _traced(network, names, other, opened)[0])
    if differs is not None:
        raise CannotFuse(
            f"{_name(network)} computes numbers from the image's size in its own way before "
            f"{place_of(differs)}, and no graph can follow; let sizes come from the shapes of maps, by sums, "
            "products and quotients"
        )
    return traced, (image, expected)


def _fuse(
    network: nn.Module, names: tuple[str, ...], apart: tuple[str, ...], multiple: int, opened: bool
) -> nn.Module:
    kind = _name(network)
    traced, (image, expected) = _traced_alike(network, names + apart, multiple, opened)
    simplify(traced)
    # Nothing is overwritten, so maps may lie in memory in another order, which changes how sums are rounded.
    if not _same(_answer(Shapes(traced).run, image), expected, TRACED_ROUNDINGS):
        raise CannotFuse(f"{kind} gives another answer once it is traced")
    join_all(traced, opened)
    _join_apart(traced, apart, image)
    traced.eval().requires_grad_(False)
    traced.take(attributes_of(network))
    odd = _image(network, 1, *ODD, multiple)
    wanted = expected, *_odd_answer(network, odd)
    for given, answer in zip((image, odd), wanted, strict=False):
        if not _same(_answer(traced, given), answer, ROUNDINGS):
            size = "x".join(map(str, given.shape[2:]))
            raise CannotFuse(
                f"{kind} gives another answer once its layers are joined, on an image of {size} px"
            )
    return traced


def _join_apart(traced: fx.GraphModule, apart: tuple[str, ...], like: Tensor) -> None:
    """Join the layers of the modules of a graph that are called one by one, each for the map it is given."""
    noise = torch.Generator().manual_seed(0)
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and node.target in apart:
            shape = node.args[0].meta["shape"]
            given = torch.rand(1, *shape[1:], generator=noise).to(like)
            traced.set_submodule(str(node.target), fuse_part(traced.get_submodule(str(node.target)), given))


def fuse_part(part: nn.Module, given: Tensor) -> Fused:
    """Trace a module of a network for one map, and join its layers; nodes of the graph know their shapes.

    Args:
        part: It is not changed; if it sees the whole map wherever it is given tiles, that is left out.
        given: Map [1, C, H, W].

    Raises:
        CannotFuse: What it does depends on the values of maps, or is lost in a graph.
    """
    alone = copy.deepcopy(part)
    vars(alone).pop("forward", None)
    traced, expected = _traced(alone, (), given, opened=True)
    simplify(traced)
    if not _same(_answer(Shapes(traced).run, given), expected, TRACED_ROUNDINGS):
        raise CannotFuse(f"{_name(part)} gives another answer once it is traced")
    join_all(traced, False)
    traced.eval().requires_grad_(False)
    if not _same(_answer(Shapes(traced).run, given), expected, ROUNDINGS):
        raise CannotFuse(f"{_name(part)} gives another answer once its layers are joined")
    return traced


def _traced(network: nn.Module, names: tuple[str, ...], image: Tensor, opened: bool) -> tuple[Fused, Any]:
    """Return a graph of a network, and its answer for an image."""
    kind = _name(network)
    try:
        root = copy.deepcopy(network).eval()
        expected = _answer(root, image)
        graph = Tracer(names, image, opened).trace(without_overwriting(root))
    except Exception as error:  # whatever a network does when it is given something else than an image
        raise CannotFuse(f"{kind} cannot be traced{_where(error)}: {_said(error)}") from error
    return Fused(root, graph, f"Fused{kind}"), expected


def _name(network: nn.Module) -> str:
    """Return what a user knows a network by."""
    return str(getattr(network, "title", type(network).__name__))


def _odd_answer(network: nn.Module, image: Tensor) -> tuple[Any, ...]:
    """Return the answer for an image of odd sides; nothing if the network takes none."""
    try:
        return (_answer(copy.deepcopy(network).eval(), image),)
    except Exception:  # as above
        return ()


def faster(network: nn.Module, dense_modules: tuple[str, ...] | None = None) -> nn.Module:
    """Fuse a network if it can be traced; else return it as it is."""
    try:
        return fuse(network, dense_modules)
    except CannotFuse:
        return network


def _image(network: nn.Module, images: int, height: int, width: int, multiple: int) -> Tensor:
    """Draw small images in the network's precision, with its channels."""
    like = next(iter(network.parameters()), torch.empty(0))
    channels = channels_of(network)
    sides = [side - side % -multiple for side in (height, width)]
    noise = torch.rand(images, channels, *sides, generator=torch.Generator().manual_seed(0))
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
