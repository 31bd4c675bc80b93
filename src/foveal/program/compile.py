"""Compile a network: its fused graph becomes a flat list of steps over numbered maps."""

from __future__ import annotations

from typing import cast

import torch
from torch import fx, nn

from foveal.fusion import CannotFuse, fuse
from foveal.fusion.layers import Convolve
from foveal.program import (  # noqa: F401  fills the tables of steps and dense modules
    pyramid,
    step_arithmetic,
    step_layers,
    step_shapes,
    step_windows,
    whole,
)
from foveal.program.builder import NotCompiled
from foveal.program.graph import Graph
from foveal.program.run import Program

ODD, LARGER = (75, 101), (333, 205)
"""Sizes of the images that a compiled network is compared on [px]: no side is a multiple of a stride. The
second one is for modules that see the whole map."""
MOST_CHANNELS = 64
TOLERANCE = 1e-3
"""Difference from the network, as a share of the largest logit, above which compiling has failed."""


def compile_network(
    network: nn.Module, dense_modules: tuple[str, ...] | None = None, multiple: int = 1
) -> Program:
    """Compile a network from images [N, C, H, W] in 0..1 to logits [N, K, h, w].

    Args:
        network: It is taken as in evaluation, and not changed.
        dense_modules: Submodules that need the whole map, by name; the network's `dense_modules` if absent.
        multiple: Sides of images must be multiples of it [px].

    Raises:
        NotCompiled: An operation has no step, or the program's answer is another one; the message says which.
        RuntimeError: The C kernels are not available.
    """
    names = _dense_modules(network, dense_modules)
    try:
        return compile_fused(fuse(network, names, multiple, separate=()), names, multiple)
    except CannotFuse as error:
        raise NotCompiled(str(error)) from None


def compile_fused(
    fused: nn.Module, dense_modules: tuple[str, ...] | None = None, multiple: int = 1
) -> Program:
    """Compile what `foveal.fuse` returned; as `compile_network` otherwise.

    Args:
        fused: It is not changed.
        dense_modules: Submodules that need the whole map, by name; the network's `dense_modules` if absent.
        multiple: Sides of images must be multiples of it [px].

    Raises:
        NotCompiled: An operation has no step, or the program's answer is another one; the message says which.
        RuntimeError: The C kernels are not available.
    """
    names, traced = _dense_modules(fused, dense_modules), cast(fx.GraphModule, fused)
    program = Program(Graph(traced, names, multiple, _image_channels(traced)).compile())
    for size in (ODD, LARGER) if names else (ODD,):
        _compare(fused, program, [side - side % -multiple for side in size])
    return program


def _dense_modules(network: nn.Module, names: tuple[str, ...] | None) -> tuple[str, ...]:
    return tuple(getattr(network, "dense_modules", ()) if names is None else names)


@torch.no_grad()
def _compare(network: nn.Module, program: Program, size: list[int]) -> None:
    image = torch.rand(1, program.channels, *size, generator=torch.Generator().manual_seed(0))
    expected = network(image).permute(0, 2, 3, 1).numpy()
    found = program.run(image.numpy(), threads=1, logits=True).logits
    assert found is not None
    if found.shape != expected.shape or not abs(found - expected).max() <= TOLERANCE * abs(expected).max():
        raise NotCompiled(
            f"the program of {type(network).__name__} gives another answer than the network on an image of "
            f"{size[0]}x{size[1]} px; it does something that depends on the image's size"
        )


def _image_channels(traced: fx.GraphModule) -> int:
    """Find how many channels images have: what the first layer takes; 3 where that is no convolution.

    Raises:
        NotCompiled: They are more than programs take.
    """
    image = next(node for node in traced.graph.nodes if node.op == "placeholder")
    layers = [traced.get_submodule(str(user.target)) for user in image.users if user.op == "call_module"]
    found = [m.convolution.weight.shape[1] * m.convolution.groups for m in layers if isinstance(m, Convolve)]
    channels = found[0] if found else 3
    if channels > MOST_CHANNELS:
        raise NotCompiled(f"images have {channels} channels; programs take up to {MOST_CHANNELS}")
    return channels
