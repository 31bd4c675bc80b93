"""The route of an image through a lattice as a picture: cells, and the paths that it took between them."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from foveal.models.lattice import SCALES, WAYS, LatticeShape
from foveal.routes import Route

Colour = tuple[int, int, int]
PAPER, INK, FAINT = (22, 22, 28), (236, 236, 240), (66, 66, 76)
COLOURS: dict[str, Colour] = {"up": (86, 180, 233), "keep": (236, 236, 240), "down": (230, 159, 0)}
HANDED: Colour = (120, 120, 132)
"""Colour of a cell that hands on what it is given."""
STEP, RADIUS, MARGIN, LINE = 52, 9, 44, 22
"""Distance of cells, their radius, and room at the sides and for a line of text [px]."""
WIDEST = 7
"""Width of a path of weight 1 [px]."""
TARGET = {"up": -1, "keep": 0, "down": 1}


def draw_route(route: Route, caption: str = "") -> Image.Image:
    """Draw a route: a column per layer, a row per scale, the finest at the top.

    Paths are as wide as their weight; closed ones are faint. Cells that compute are filled, those that hand
    on what they are given are grey, those that nothing arrives at are empty.

    Args:
        route: The route.
        caption: Put below the picture, after what it says itself.
    """
    width = 2 * MARGIN + route.layers * STEP + STEP
    picture = Image.new("RGB", (width, 2 * MARGIN + (SCALES - 1) * STEP + LINE), PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    shape, reached = LatticeShape(route.layers, 2, 1), set(route.reached)
    for is_open in (False, True):
        for layer, scale in shape.cells:
            for way in shape.ways(layer, scale):
                _draw_path(pen, route, (layer, scale), way, is_open and (layer, scale) in reached)
    for layer, scale in shape.cells:
        _draw_cell(pen, route, (layer, scale), (layer, scale) in reached)
    for scale in range(SCALES):
        pen.text((8, _place(0, scale)[1] - 8), f"/{4 << scale}", INK, font)
    said = f"{len(route.computed)} of {len(shape.cells)} cells compute, {route.open_paths} paths are open"
    pen.text((8, picture.height - LINE), ", ".join(filter(None, [said, caption])), INK, font)
    return picture


def _draw_path(
    pen: ImageDraw.ImageDraw, route: Route, cell: tuple[int, int], way: str, is_open: bool
) -> None:
    """Draw a path: faint in the first round, as its weight says in the second."""
    layer, scale = cell
    ends = [_place(layer, scale), _place(layer + 1, scale + TARGET[way])]
    weight = route.weights[layer][scale][WAYS.index(way)]
    if not is_open:
        pen.line(ends, FAINT, 1)
    elif weight:
        pen.line(ends, COLOURS[way], max(1, round(min(weight, 1.0) * WIDEST)))
    elif way == "keep" and not route.open_ways(layer, scale):
        pen.line(ends, HANDED, 1)


def _draw_cell(pen: ImageDraw.ImageDraw, route: Route, cell: tuple[int, int], reached: bool) -> None:
    x, y = _place(*cell)
    fill = PAPER if not reached else INK if route.open_ways(*cell) else HANDED
    pen.ellipse((x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS), fill, INK if reached else FAINT)


def _place(layer: int, scale: int) -> tuple[int, int]:
    return MARGIN + layer * STEP, MARGIN + scale * STEP
