"""Label maps as pictures, and values as HTML: what a notebook shows, whatever layer it comes from."""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from foveal.storage.labels import VOID

if TYPE_CHECKING:
    from PIL import Image

Colour = tuple[int, int, int]
Palette = tuple[Colour, ...]
WIDEST = 480
"""Width of a picture in a notebook [px]."""


def default_palette(count: int) -> Palette:
    """Make distinct colours, the same ones each time.

    Args:
        count: how many, 0 to 256.

    Returns:
        `count` RGB colours, 0..255.
    """
    golden_turn = 0.618034
    shades = ((0.65, 0.95), (0.95, 0.65), (0.45, 0.75))
    colours = (colorsys.hsv_to_rgb(i * golden_turn % 1, *shades[i % 3]) for i in range(count))
    return tuple((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colours)


def label_picture(labels: Any, palette: Sequence[Colour]) -> Image.Image:
    """Return labels [H, W], uint8 on the CPU, as a picture with a palette; ids beyond it are black."""
    from PIL import Image

    picture = Image.fromarray(np.asarray(labels), mode=None)
    table = [channel for colour in palette for channel in colour]
    picture.putpalette((table + [0] * 768)[:768])
    return picture


def lay_over(labels: Any, palette: Sequence[Colour], image: Any, opacity: float) -> Image.Image:
    """Lay the colours of labels [H, W] over an image, where there is a label.

    Args:
        labels: uint8; 255 is no label.
        palette: Colour of every class, 0..255.
        image: [3, H, W], bytes or floats in 0..1.
        opacity: Share of the labels' colours.

    Raises:
        ValueError: The image is no colour image of the labels' size.
    """
    from PIL import Image

    wanted, given = (3, *np.asarray(labels).shape), np.asarray(image)
    if given.shape != wanted:
        raise ValueError(
            f"image is {list(given.shape)}; give the colour image {list(wanted)} that was segmented"
        )
    pixels = given if given.dtype == np.uint8 else (given * 255).round().clip(0, 255).astype(np.uint8)
    shown = (np.asarray(labels) != VOID).astype(np.uint8) * round(255 * opacity)
    below = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return Image.composite(label_picture(labels, palette).convert("RGB"), below, Image.fromarray(shown))


def figure(picture: Image.Image, *lines: str) -> str:
    """Return a picture with lines of text below it as HTML."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    code = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure style="display:inline-block;max-width:{WIDEST}px">'
        f'<img src="data:image/png;base64,{code}" style="max-width:100%">'
        f"<figcaption>{'<br>'.join(map(escape, lines))}</figcaption></figure>"
    )


def sentence(text: str) -> str:
    """Return a sentence as HTML."""
    return f"<p>{escape(text)}</p>"
