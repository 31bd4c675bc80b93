"""Well-known networks as fixed routes through a lattice, and the route that most images take.

Source: Li et al., CVPR 2020, which models FCN-32s (Long et al., 2015), U-Net (Ronneberger et
al., 2015), DeepLabV3 (Chen et al., 2017), HRNetV2 (Sun et al., 2019) and Auto-DeepLab (Liu et al., 2019) in
its routing space; which cells it takes for them is drawn there and not written down, so these are ours, from
the networks' own papers. Depths follow the lattice's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from foveal.models.lattice import SCALES, WAYS, LatticeShape, Weights
from foveal.routes.costs import LatticeCosts
from foveal.routes.route import CLOSED, Route
from foveal.storage.names import find

AUTO_DEEPLAB = (0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1)
"""Scale of every layer of the network that Auto-DeepLab found on Cityscapes."""
EXCHANGE = 4
"""Layers of HRNetV2 from one exchange between its branches to the next."""
STEPS = {-1: "up", 0: "keep", 1: "down"}


def fcn32s(layers: int) -> Route:
    """Go down to stride 32 at once, and stay there to the end: the decoder gets nothing finer."""
    return _along([min(layer, SCALES - 1) for layer in range(layers + 1)])


def deeplabv3(layers: int) -> Route:
    """Go down to stride 16 at once and stay there to the end, as its dilated networks do."""
    return _along([min(layer, SCALES - 2) for layer in range(layers + 1)])


def auto_deeplab(layers: int) -> Route:
    """Take the scales that its search found, stretched over the layers, a step at a time."""
    scales, last = [0], len(AUTO_DEEPLAB) - 1
    for layer in range(1, layers + 1):
        wanted = AUTO_DEEPLAB[round((layer - 1) * last / (layers - 1))]
        most = min(scales[-1] + 1, LatticeShape(layers, 2, 1).scales(layer) - 1)
        scales.append(max(scales[-1] - 1, min(wanted, most)))
    return _along(scales)


def unet(layers: int) -> Route:
    """Go down in the first half and up in the second, mirrored; what a scale has before waits there."""
    coarsest = min(SCALES - 1, layers // 2)
    down = [step * layers // (2 * coarsest) for step in range(coarsest)]
    up = [layers - 1 - layer for layer in down]
    cells: dict[tuple[int, int], list[str]] = {}
    scale = 0
    for layer in range(layers + 1):
        cells[layer, scale] = ["up"] if layer in up else ["keep"] + ["down"] * (layer in down)
        scale += (layer in down) - (layer in up)
    return _open(layers, cells)


def hrnetv2(layers: int) -> Route:
    """Run a branch per scale from where it can begin; neighbours exchange every few layers."""
    shape = LatticeShape(layers, 2, 1)
    cells: dict[tuple[int, int], list[str]] = {}
    for layer, scale in shape.cells:
        begins = scale + 1 == shape.scales(layer) and layer < SCALES - 1
        exchanges = layer % EXCHANGE == EXCHANGE - 1
        ways = shape.ways(layer, scale)
        cells[layer, scale] = [
            way for way in ways if way == "keep" or exchanges or (way == "down" and begins)
        ]
    return _open(layers, cells)


FIXED: dict[str, Callable[[int], Route]] = {
    "fcn32s": fcn32s,
    "deeplabv3": deeplabv3,
    "unet": unet,
    "hrnetv2": hrnetv2,
    "auto_deeplab": auto_deeplab,
}
"""Routes by name, from the layers of a lattice after its initial cell."""


def fixed_route(name: str, layers: int) -> Route:
    """Return a route by name.

    Raises:
        ValueError: There is no such route.
    """
    return find(name, FIXED, "fixed route")(layers)


def usual_route(weights: Weights, costs: LatticeCosts, most: float) -> Route:
    """Return one route for all images: the paths of the largest usual weights that fit, and no gate.

    Args:
        weights: Usual weights of a network's paths.
        costs: Of the lattice on an image.
        most: MACs that it may take [MAC].
    """
    layers = costs.shape.layers
    cells = {cell: list(weights[cell[0]][cell[1]][: len(WAYS)]) for cell in costs.shape.cells}
    order = sorted(
        (weight, layer, scale, k)
        for (layer, scale), cell in cells.items()
        for k, weight in enumerate(cell)
        if weight >= CLOSED
    )
    route = Route.of(layers, cells)
    for _, layer, scale, k in order:
        if costs.of(route) <= most:
            break
        cells[layer, scale][k] = 0.0
        route = Route.of(layers, cells)
    return route


def _along(scales: Sequence[int]) -> Route:
    """Take one path, through the scale of every layer."""
    ways = [STEPS[b - a] for a, b in pairwise(scales)]
    return _open(
        len(scales) - 1,
        {
            (layer, scale): [way]
            for (layer, scale), way in zip(enumerate(scales), [*ways, "keep"], strict=True)
        },
    )


def _open(layers: int, cells: dict[tuple[int, int], list[str]]) -> Route:
    """Open some ways out of some cells."""
    return Route.of(layers, {cell: [float(way in ways) for way in WAYS] for cell, ways in cells.items()})
