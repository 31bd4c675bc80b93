"""Pictures for people: labels over the image, and the plan over the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from foveal.data.image import save_image, save_labels
from foveal.geometry.plan import SKIP
from foveal.inference.result import Result, level_shares
from foveal.reporting.plan_text import level_name
from foveal.reporting.route_picture import draw_route
from foveal.storage.atomic import replacing

Colour = tuple[int, int, int]

TINTS: dict[int, tuple[Colour, float]] = {
    0: ((255, 255, 255), 0.0),
    1: ((38, 108, 196), 0.30),
    2: ((74, 32, 128), 0.58),
    3: ((36, 12, 74), 0.74),
    SKIP: ((24, 24, 28), 0.66),
}
"""Colour of a level, and how much of it is laid over the image."""

BORDER: Colour = (255, 255, 255)
PAPER, INK, FAINT = (22, 22, 28), (236, 236, 240), (150, 150, 160)
LONGEST, SHORTEST = 1920, 320
"""Limits for the longer side of a plan picture [px]: larger images are reduced, smaller ones enlarged."""
THINNEST = 6
"""Tiles narrower than this in the picture get no borders [px]."""
JPEG_LIMIT = 65_500
"""Longest side that a JPEG file can have [px]."""


def colours(labels: Tensor, palette: Sequence[Colour]) -> Tensor:
    """Paint a label map [H, W] with its colours: [3, H, W] in 0..1; ids beyond the palette are black."""
    table = torch.zeros(256, 3)
    table[: len(palette)] = torch.tensor(palette).float().reshape(-1, 3) / 255
    return table[labels.long()].permute(2, 0, 1)


def in_colour(image: Tensor) -> Tensor:
    """Return an image [C, H, W] as people see it [3, H, W]: its first three channels, or the first alone."""
    return image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)


def overlay(image: Tensor, labels: Tensor, palette: Sequence[Colour], opacity: float = 0.5) -> Tensor:
    """Lay the colours of the labels [H, W] over an image [3, H, W] in 0..1."""
    return torch.lerp(image, colours(labels, palette), opacity)


def draw_plan(image: Tensor, levels: Tensor, tile: int, caption: str = "") -> Image.Image:
    """Draw what the network saw: every tile at its resolution, tinted by its level.

    Args:
        image: [3, H, W] in 0..1.
        levels: Level per cell [Gh, Gw].
        tile: Side of a cell [px].
        caption: Put at the right of the legend, if there is room.

    Returns:
        The picture with a legend below it.
    """
    scale = _scale((image.shape[1], image.shape[2]))
    height, width = (max(1, round(n * scale)) for n in image.shape[1:])
    smooth = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    picture = _to_pillow(_tinted(image, levels, tile)).resize((width, height), smooth)
    if levels.numel() > 1 and tile * scale >= THINNEST:
        _draw_borders(picture, levels, tile * scale)
    return _with_legend(picture, level_shares(levels), caption)


def save_pictures(result: Result, palette: Sequence[Colour], stem: Path) -> dict[str, Path]:
    """Write the labels, the overlay and the plan of an image; the route where one was taken.

    Args:
        result: What the network said.
        palette: Colour of every class.
        stem: Folder and beginning of the file names.

    Returns:
        The files: mask, overlay, plan.

    Raises:
        OSError: A file cannot be written.
    """
    files = picture_files(stem, result.size)
    save_labels(result.labels, files["mask"], palette)
    image = in_colour(result.image)
    save_image(overlay(image, result.labels, palette), files["overlay"])
    caption = f"work {result.work:.3f}"
    if result.route is None:
        picture = draw_plan(image, result.levels, result.tile, caption)
    else:
        picture = draw_route(result.route, caption)
    with replacing(files["plan"]) as part:
        picture.save(part)
    return files


def picture_files(stem: Path, size: tuple[int, int] = (1, 1)) -> dict[str, Path]:
    """Names of the files that `save_pictures` writes for an image of a size [px]."""
    photo = "jpg" if max(size) <= JPEG_LIMIT else "png"
    names = {"mask": "labels.png", "overlay": f"overlay.{photo}", "plan": "plan.png"}
    return {kind: stem.with_name(f"{stem.name}_{name}") for kind, name in names.items()}


def _tinted(image: Tensor, levels: Tensor, tile: int) -> Tensor:
    """Reduce every tile to its resolution and tint it."""
    height, width = image.shape[1:]
    out, reduced = image.clone(), image[None]
    for level in range(int(levels.max()) + 1):
        if level:
            reduced = F.avg_pool2d(reduced, 2, ceil_mode=True, count_include_pad=False)
        shown = F.interpolate(reduced, scale_factor=2**level)[0, :, :height, :width]
        out = torch.where(_pixels(levels == level, tile, image), _tint(shown, level), out)
    return torch.where(_pixels(levels == SKIP, tile, image), _hatched(_tint(image, SKIP), tile), out)


def _tint(image: Tensor, level: int) -> Tensor:
    colour, strength = TINTS[min(level, 3)]
    return torch.lerp(image, torch.tensor(colour).view(3, 1, 1) / 255, strength)


def _hatched(image: Tensor, tile: int) -> Tensor:
    """Draw diagonal lines, four a tile."""
    period = max(4, tile // 4)
    row, column = (torch.arange(n) for n in image.shape[1:])
    line = (row[:, None] + column[None]) % period < max(1, period // 8)
    return torch.where(line, torch.lerp(image, torch.ones(()), 0.45), image)


def _pixels(cells: Tensor, tile: int, image: Tensor) -> Tensor:
    """Spread a mask of cells over the pixels of an image."""
    mask = cells.repeat_interleave(tile, 0).repeat_interleave(tile, 1)
    return mask[: image.shape[1], : image.shape[2]]


def _draw_borders(picture: Image.Image, levels: Tensor, step: float) -> None:
    """Draw thin lines around the tiles, whose cells are `step` pixels wide; fainter where they are dense."""
    layer = Image.new("L", picture.size)
    pen = ImageDraw.Draw(layer)
    strength = round(min(96, 4 * step))
    for row, column in _edges(levels).nonzero().tolist():
        x, top, bottom = (round(n * step) for n in (column, row, row + 1))
        pen.line((x, top, x, bottom), strength)
    for column, row in _edges(levels.T).nonzero().tolist():
        y, left, right = (round(n * step) for n in (row, column, column + 1))
        pen.line((left, y, right, y), strength)
    picture.paste(Image.new("RGB", picture.size, BORDER), mask=layer)


def _edges(levels: Tensor) -> Tensor:
    """Mark the cells [Gh, Gw] that have another tile at their left."""
    first = torch.arange(levels.shape[1]) % (1 << levels.clamp(min=0).long()) == 0
    first[:, 0] = False
    first[:, 1:] |= levels[:, 1:] != levels[:, :-1]
    first[:, 1:] &= (levels[:, 1:] != SKIP) | (levels[:, :-1] != SKIP)
    return first


def _with_legend(picture: Image.Image, levels: dict[int, float], caption: str) -> Image.Image:
    """Put a strip with a swatch, the name and the share of every level below the picture."""
    em = max(13, min(28, picture.width // 50))
    font = ImageFont.load_default(em)
    entries = [(level, f"{level_name(level)} {share:.0%}") for level, share in levels.items()]
    needed = em + sum(round(font.getlength(text)) + 3 * em for _, text in entries)
    canvas = Image.new("RGB", (max(picture.width, needed), picture.height + round(2.4 * em)), PAPER)
    canvas.paste(picture, ((canvas.width - picture.width) // 2, 0))
    pen = ImageDraw.Draw(canvas)
    left, middle = em, picture.height + round(1.2 * em)
    for level, text in entries:
        swatch = _swatch(level, em)
        canvas.paste(swatch, (left, middle - em // 2))
        pen.text((left + round(1.5 * em), middle), text, INK, font, anchor="lm")
        left += round(font.getlength(text)) + 3 * em
    if caption and left + font.getlength(caption) + em <= canvas.width:
        pen.text((canvas.width - em, middle), caption, FAINT, font, anchor="rm")
    return canvas


def _swatch(level: int, side: int) -> Image.Image:
    grey = torch.full((3, side, side), 0.6)
    tinted = _tint(grey, level)
    swatch = _to_pillow(_hatched(tinted, 2 * side) if level == SKIP else tinted)
    ImageDraw.Draw(swatch).rectangle((0, 0, side - 1, side - 1), outline=FAINT)
    return swatch


def _scale(size: tuple[int, int]) -> float:
    longer = max(size)
    if longer > LONGEST:
        return LONGEST / longer
    return -(-SHORTEST // longer) if longer < SHORTEST else 1.0


def _to_pillow(image: Tensor) -> Image.Image:
    rows = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    return Image.fromarray(rows.cpu().numpy())
