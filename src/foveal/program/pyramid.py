"""Pyramid pooling as in SwiftNet, over the whole map: columns of its grids follow from the image's sides."""

from __future__ import annotations

from torch import fx, nn

from foveal.fusion.layers import as_convolution, norm_of
from foveal.models.swiftnet import PyramidPooling
from foveal.ops import Convolution, Prologue
from foveal.program.builder import Builder, NotCompiled
from foveal.program.graph import Graph, Value, dense_module
from foveal.program.layers import add_convolution
from foveal.program.spec import BINS, COMPOSE, CONCAT, CUT, GRID_POOL, GRID_SPREAD, WHOLE


@dense_module
def pyramid(g: Graph, node: fx.Node, name: str, module: nn.Module) -> Value | None:
    """Add pyramid pooling; None for other modules.

    Raises:
        NotCompiled: Its layers are not those of `PyramidPooling`.
    """
    if type(module) is not PyramidPooling:
        return None
    return Value(_add_pyramid(g.builder, name, module, g.map(node.args[0], f"the input of '{name}'")))


def _add_pyramid(builder: Builder, name: str, module: PyramidPooling, given: int) -> int:
    stride = builder.maps[given].stride
    reduce, fuse = _unit(module.reduce, name), _unit(module.fuse, name)
    levels = [_unit(level, name) for level in module.levels]
    width, joined = len(reduce.weight), fuse.weight.shape[1]
    composed = builder.add_map(builder.maps[given].channels, stride, WHOLE)
    builder.add_step(f"{name}.compose", COMPOSE, given, composed)
    reduced = add_convolution(builder, f"{name}.reduce", reduce, composed)
    together = builder.add_map(joined, stride, WHOLE)
    builder.add_step(f"{name}.join", CONCAT, reduced, together)
    at = width
    for grid, level in zip(module.grids, levels, strict=True):
        bins = builder.add_map(width, stride, BINS, grid)
        builder.add_step(f"{name}.pool{grid}", GRID_POOL, reduced, bins)
        pooled = add_convolution(builder, f"{name}.level{grid}", level, bins)
        builder.add_step(f"{name}.spread{grid}", GRID_SPREAD, pooled, together, at=at)
        at += len(level.weight)
    fused = add_convolution(builder, f"{name}.fuse", fuse, together)
    out = builder.add_map(len(fuse.weight), stride)
    builder.add_step(f"{name}.cut", CUT, fused, out)
    return out


def _unit(unit: nn.Module, name: str) -> Convolution:
    """Read norm, ReLU and 1x1 convolution as one convolution."""
    parts = list(unit.children())
    kinds = [type(part) for part in parts]
    if kinds != [nn.BatchNorm2d, nn.ReLU, nn.Conv2d]:
        raise NotCompiled(f"'{name}' has a unit of {[kind.__name__ for kind in kinds]}")
    norm, convolution = norm_of(parts[0]), as_convolution(parts[2])  # type: ignore[arg-type]
    if norm is None or convolution is None or convolution.kernel != (1, 1):
        raise NotCompiled(f"'{name}' has a unit that is no norm, ReLU and 1x1 convolution")
    prologue = Prologue(norm[0].float(), norm[1].float(), 0.0)
    return Convolution(convolution.weight, convolution.bias, prologue=prologue)
