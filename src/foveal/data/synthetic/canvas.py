"""Camera and canvas: street metres to pixels, one drawing call for colour and label alike.

Points are ``(x, y, z)`` in metres: x across the street (0 is its middle, right is positive), y above the
ground, z ahead of the camera. The canvas is supersampled; labels are drawn on the same fine grid with the
same outlines, so that picture and labels cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from foveal.data.synthetic.scene import Colour, Light

Point = tuple[float, float, float]
Pixel = tuple[float, float]

NEAR = 0.4  # [m] nothing closer than this is drawn
ROUND = [(math.cos(step * math.pi / 8), math.sin(step * math.pi / 8)) for step in range(16)]


def mix(first: Colour, second: Colour, amount: float) -> Colour:
    """Blend two colours; amount 0 gives the first, 1 the second."""
    keep = 1.0 - amount
    return (
        first[0] * keep + second[0] * amount,
        first[1] * keep + second[1] * amount,
        first[2] * keep + second[2] * amount,
    )


def scale(colour: Colour, factor: float) -> Colour:
    """Brighten (factor above 1) or darken a colour."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def chance(*keys: int) -> float:
    """A fixed number in [0, 1) for some integers: randomness without any state."""
    value = 0x9E3779B9
    for key in keys:
        value = ((value ^ (key & 0xFFFFFFFF)) * 0x85EBCA6B) & 0xFFFFFFFF
        value ^= value >> 13
        value = (value * 0xC2B2AE35) & 0xFFFFFFFF
        value ^= value >> 16
    return value / 2**32


@dataclass(frozen=True)
class Camera:
    """A pinhole camera over a flat, gently bending street.

    Attributes:
        focal: Focal length [px].
        centre: Column straight ahead [px].
        horizon: Row of the horizon [px].
        height: Height above the ground [m].
        offset: Place across the street [m].
        bend: Sideways shift of the street per squared metre ahead [1/m].
    """

    focal: float
    centre: float
    horizon: float
    height: float
    offset: float
    bend: float

    def project(self, point: Point) -> Pixel:
        """Where a point lands in the picture [px]; z must be positive."""
        x, y, z = point
        zoom = self.focal / z
        column = self.centre + zoom * (x - self.offset + self.bend * z * z)
        return column, self.horizon + zoom * (self.height - y)

    def outline(self, points: Sequence[Point]) -> list[Pixel]:
        """Cut a polygon at the near plane and project what is left of it [px]."""
        if min(point[2] for point in points) >= NEAR:
            return [self.project(point) for point in points]
        kept: list[Pixel] = []
        for first, second in zip(points, [*points[1:], points[0]], strict=True):
            if first[2] >= NEAR:
                kept.append(self.project(first))
            if (first[2] >= NEAR) != (second[2] >= NEAR):
                part = (NEAR - first[2]) / (second[2] - first[2])
                x = first[0] + part * (second[0] - first[0])
                y = first[1] + part * (second[1] - first[1])
                kept.append(self.project((x, y, NEAR)))
        return kept


class Canvas:
    """A picture and its labels, drawn together from far to near."""

    def __init__(self, image: Image.Image, labels: Image.Image, camera: Camera, light: Light) -> None:
        """Draw onto an RGB picture and an L label map of the same (supersampled) size."""
        self.image, self.labels, self.camera, self.light = image, labels, camera, light
        self._solid = ImageDraw.Draw(image)
        self._glaze = ImageDraw.Draw(image, "RGBA")
        self._label = ImageDraw.Draw(labels)

    def lit(self, colour: Colour, across: float = 0.0, ahead: float = -1.0) -> Colour:
        """The colour of a face in this light; its normal points ``across`` the street and ``ahead``."""
        light = self.light
        direct = max(0.0, across * light.sun_across + ahead * light.sun_ahead)
        return (
            colour[0] * (light.ambient[0] + light.direct[0] * direct),
            colour[1] * (light.ambient[1] + light.direct[1] * direct),
            colour[2] * (light.ambient[2] + light.direct[2] * direct),
        )

    def air(self, colour: Colour, distance: float) -> tuple[int, int, int]:
        """The colour as seen through the haze at a distance [m], as bytes."""
        haze = 1.0 - math.exp(-max(0.0, distance) / self.light.visibility)
        red, green, blue = mix(colour, self.light.haze, haze)
        return min(255, int(red * 255)), min(255, int(green * 255)), min(255, int(blue * 255))

    def sharp(self, size: float, distance: float) -> bool:
        """Whether something of a size [m] spans a sample at a distance [m]."""
        return size * self.camera.focal > distance

    def fill(
        self, points: Sequence[Point], colour: Colour, label: int | None = None, alpha: float = 1.0
    ) -> None:
        """Fill a polygon in space; without a label only its colour is drawn."""
        outline = self.camera.outline(points)
        distance = sum(point[2] for point in points) / len(points)
        self.fill_pixels(outline, self.air(colour, distance), label, alpha)

    def fill_pixels(
        self, outline: Sequence[Pixel], colour: tuple[int, int, int], label: int | None, alpha: float = 1.0
    ) -> None:
        """Fill a polygon given in pixels with a finished colour."""
        if len(outline) < 3 or self._outside(outline):
            return
        corners = [(int(column), int(row)) for column, row in outline]
        if alpha >= 1.0:
            self._solid.polygon(corners, fill=colour)
        else:
            self._glaze.polygon(corners, fill=(*colour, int(alpha * 255)))
        if label is not None:
            self._label.polygon(corners, fill=label)

    def limb(
        self,
        ends: tuple[Point, Point],
        radii: tuple[float, float],
        colour: Colour,
        label: int | None = None,
    ) -> None:
        """Draw a tapered stick with round ends, the stuff of limbs, posts and frames; radii in metres."""
        if min(ends[0][2], ends[1][2]) < NEAR:
            return
        paint = self.air(colour, ends[0][2])
        discs = [
            (self.camera.project(end), radius * self.camera.focal / end[2])
            for end, radius in zip(ends, radii, strict=True)
        ]
        (first, wide), (second, narrow) = discs
        run, rise = second[0] - first[0], second[1] - first[1]
        length = math.hypot(run, rise) or 1.0
        side, up = -rise / length, run / length
        body = [
            (first[0] + side * wide, first[1] + up * wide),
            (second[0] + side * narrow, second[1] + up * narrow),
            (second[0] - side * narrow, second[1] - up * narrow),
            (first[0] - side * wide, first[1] - up * wide),
        ]
        self.fill_pixels(body, paint, label)
        for middle, radius in discs:
            if radius > 1.0:
                ring = [(middle[0] + x * radius, middle[1] + y * radius) for x, y in ROUND]
                self.fill_pixels(ring, paint, label)

    def disc(
        self, middle: Point, radius: float, colour: Colour, label: int | None = None, alpha: float = 1.0
    ) -> None:
        """Fill a disc that faces the camera; radius in metres."""
        x, y, z = middle
        self.fill([(x + radius * a, y + radius * b, z) for a, b in ROUND], colour, label, alpha)

    def stamp(
        self, corners: tuple[Point, Point], picture: Image.Image, mask: Image.Image, label: int
    ) -> None:
        """Paste an upright picture where a float mask (mode F) is positive.

        Args:
            corners: Top left and bottom right of the picture in space [m].
            picture: RGB picture, lit but without haze.
            mask: Positive where the picture covers, same size as the picture.
            label: Class id drawn where it covers.
        """
        if corners[0][2] < NEAR:
            return
        (left, top), (right, bottom) = (self.camera.project(corner) for corner in corners)
        seen = self._seen(left, top, right, bottom)
        if seen is None:
            return
        size, place = (seen[2] - seen[0], seen[3] - seen[1]), (seen[0], seen[1])
        wide, high = picture.width / (right - left), picture.height / (bottom - top)
        box = (
            max(0.0, (seen[0] - left) * wide),
            max(0.0, (seen[1] - top) * high),
            min(picture.width, (seen[2] - left) * wide),
            min(picture.height, (seen[3] - top) * high),
        )
        covers = np.asarray(mask.resize(size, Image.Resampling.BILINEAR, box)) > 0
        shape = Image.fromarray(covers.astype(np.uint8) * 255)
        colours = picture.resize(size, Image.Resampling.BILINEAR, box)
        haze = 1.0 - math.exp(-corners[0][2] / self.light.visibility)
        veil = Image.new("RGB", size, self.air(self.light.haze, 0.0))
        self.image.paste(Image.blend(colours, veil, haze), place, shape)
        self.labels.paste(label, (*place, place[0] + size[0], place[1] + size[1]), shape)

    def _seen(self, left: float, top: float, right: float, bottom: float) -> tuple[int, int, int, int] | None:
        """The part of a box inside the picture [px], or None."""
        seen = (
            max(0, math.floor(left)),
            max(0, math.floor(top)),
            min(self.image.width, math.ceil(right)),
            min(self.image.height, math.ceil(bottom)),
        )
        return seen if seen[2] > seen[0] and seen[3] > seen[1] and right > left and bottom > top else None

    def _outside(self, outline: Sequence[Pixel]) -> bool:
        columns = [pixel[0] for pixel in outline]
        rows = [pixel[1] for pixel in outline]
        return (
            max(columns) < 0
            or min(columns) >= self.image.width
            or max(rows) < 0
            or min(rows) >= self.image.height
        )
