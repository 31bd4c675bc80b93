"""Pictures for people: labels over the image, and the plan over the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from foveal.data.image import save_image, save_labels
from foveal.tiles.plan import SKIP, Plan

Colour = tuple[int, int, int]

LEVEL_NAMES = {0: "full", 1: "half", 2: "quarter", SKIP: "skip"}
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
JPEG_LIMIT = 65_500
"""Longest side that a JPEG file can have [px]."""


def level_name(level: int) -> str:
    """Name of a level: full, half, quarter, 1/8, ..., skip."""
    return LEVEL_NAMES.get(level, f"1/{2 ** max(level, 0)}")


def colours(labels: Tensor, palette: Sequence[Colour]) -> Tensor:
    """Paint a label map [H, W] with its colours: [3, H, W] in 0..1; ids beyond the palette are black."""
    table = torch.zeros(256, 3)
    table[: len(palette)] = torch.tensor(palette).float().reshape(-1, 3) / 255
    return table[labels.long()].permute(2, 0, 1)


def overlay(image: Tensor, labels: Tensor, palette: Sequence[Colour], opacity: float = 0.5) -> Tensor:
    """Lay the colours of the labels [H, W] over an image [3, H, W] in 0..1."""
    return torch.lerp(image, colours(labels, palette), opacity)


def draw_plan(image: Tensor, plan: Plan | None, caption: str = "") -> Image.Image:
    """Draw what a plan lets the network see: every tile at its resolution, tinted by its level.

    Args:
        image: [3, H, W] in 0..1.
        plan: A plan of one image; None for everything at full resolution.
        caption: Put at the right of the legend, if there is room.

    Returns:
        The picture with a legend below it.
    """
    seen = image if plan is None else _tinted(image, plan)
    size = (image.shape[1], image.shape[2])
    scale = _scale(size)
    height, width = (max(1, round(n * scale)) for n in size)
    picture = _to_pillow(seen).resize((width, height), Image.Resampling.BOX if scale < 1 else Image.NEAREST)
    if plan is not None:
        _draw_borders(picture, plan, scale)
    return _with_legend(picture, _shares(plan), caption)


def save_pictures(
    image: Tensor,
    labels: Tensor,
    plan: Plan | None,
    palette: Sequence[Colour],
    stem: Path,
    caption: str = "",
) -> dict[str, Path]:
    """Write the labels, the overlay and the plan of an image.

    Args:
        image: [3, H, W] in 0..1.
        labels: Class per pixel [H, W], uint8.
        plan: Which tiles ran; None if the whole image did.
        palette: Colour of every class.
        stem: Folder and beginning of the file names.
        caption: Text in the plan's legend.

    Returns:
        The files: mask, overlay, plan.

    Raises:
        OSError: A file cannot be written.
    """
    files = picture_files(stem, (labels.shape[0], labels.shape[1]))
    save_labels(labels, files["mask"], palette)
    save_image(overlay(image, labels, palette), files["overlay"])
    draw_plan(image, plan, caption).save(files["plan"])
    return files


def picture_files(stem: Path, size: tuple[int, int] = (1, 1)) -> dict[str, Path]:
    """Names of the files that `save_pictures` writes for an image of a size [px]."""
    photo = "jpg" if max(size) <= JPEG_LIMIT else "png"
    names = {"mask": "labels.png", "overlay": f"overlay.{photo}", "plan": "plan.png"}
    return {kind: stem.with_name(f"{stem.name}_{name}") for kind, name in names.items()}


def _tinted(image: Tensor, plan: Plan) -> Tensor:
    """Reduce every tile to its resolution and tint it."""
    levels = plan.levels[0].to(image.device)
    out, reduced = image.clone(), image[None]
    masks = {int(level): _pixels(levels == level, plan) for level in levels.unique()}
    for level in range(max(masks) + 1):
        if level:
            reduced = F.avg_pool2d(reduced, 2, ceil_mode=True, count_include_pad=False)
        if level in masks:
            shown = F.interpolate(reduced, scale_factor=2**level)[0, :, : image.shape[1], : image.shape[2]]
            out = torch.where(masks[level], _tint(shown, level), out)
    if SKIP in masks:
        out = torch.where(masks[SKIP], _hatched(_tint(image, SKIP), plan.tile), out)
    return out


def _tint(image: Tensor, level: int) -> Tensor:
    colour, strength = TINTS[min(level, 3)]
    return torch.lerp(image, torch.tensor(colour).view(3, 1, 1) / 255, strength)


def _hatched(image: Tensor, tile: int) -> Tensor:
    """Draw diagonal lines, four a tile."""
    period = max(4, tile // 4)
    row, column = (torch.arange(n) for n in image.shape[1:])
    line = (row[:, None] + column[None]) % period < max(1, period // 8)
    return torch.where(line, torch.lerp(image, torch.ones(()), 0.45), image)


def _pixels(cells: Tensor, plan: Plan) -> Tensor:
    """Spread a mask of cells over the pixels of the image."""
    mask = cells.repeat_interleave(plan.tile, 0).repeat_interleave(plan.tile, 1)
    return mask[: plan.size[0], : plan.size[1]]


def _draw_borders(picture: Image.Image, plan: Plan, scale: float) -> None:
    """Draw thin lines around the tiles; none where they would hide the picture."""
    if plan.tile * scale < 6:
        return
    layer = Image.new("L", picture.size)
    pen = ImageDraw.Draw(layer)
    layout = plan.layout
    step = plan.tile * scale
    places = torch.stack([layout.level, layout.row, layout.column], 1).tolist()
    for level, row, column in places:
        left, top, side = column * step, row * step, step * 2**level
        pen.rectangle((round(left), round(top), round(left + side), round(top + side)), outline=96)
    picture.paste(Image.new("RGB", picture.size, BORDER), mask=layer)


def _shares(plan: Plan | None) -> dict[int, float]:
    if plan is None:
        return {0: 1.0}
    found = sorted(set(plan.levels.flatten().tolist()), key=lambda level: (level == SKIP, level))
    return {level: plan.share(level) for level in found}


def _with_legend(picture: Image.Image, shares: dict[int, float], caption: str) -> Image.Image:
    """Put a strip with a swatch, the name and the share of every level below the picture."""
    em = max(13, min(28, picture.width // 50))
    font = ImageFont.load_default(em)
    entries = [(level, f"{level_name(level)} {share:.0%}") for level, share in shares.items()]
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
