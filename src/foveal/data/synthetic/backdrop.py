"""The backdrop of a street: sky and ground, computed per pixel at the picture's own resolution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveal.data.synthetic.canvas import Camera
from foveal.data.synthetic.scene import PERIOD, Colour, Scene

Array = NDArray[np.floating[Any]]

SKY, ROAD, PAVEMENT, LAWN = 0, 3, 4, 5
TABLE = 256  # the noise repeats after this many cells
BAND = 1 << 20  # [px] how much is computed at a time


def tint(colour: Sequence[float]) -> Array:
    """A colour as an array [3]."""
    return np.asarray(colour, np.float32)


@lru_cache(maxsize=16)
def _table(key: int) -> Array:
    return np.random.default_rng([77, key]).uniform(-1, 1, (TABLE, TABLE)).astype(np.float32)


def noise(x: Array, y: Array, key: int) -> Array:
    """Smooth noise in -1..1 with one bump per unit; x and y broadcast, the result is [H, W]."""
    column, row = np.floor(x), np.floor(y)
    right, down = x - column, y - row
    right, down = right * right * (3 - 2 * right), down * down * (3 - 2 * down)
    left, top = column.astype(np.int32) & (TABLE - 1), row.astype(np.int32) & (TABLE - 1)
    table, beyond, below = _table(key), (left + 1) & (TABLE - 1), (top + 1) & (TABLE - 1)
    upper = table[top, left] * (1 - right) + table[top, beyond] * right
    lower = table[below, left] * (1 - right) + table[below, beyond] * right
    return np.asarray(upper * (1 - down) + lower * down, np.float32)


def cells(x: Array, y: Array, key: int) -> Array:
    """A fixed random number in -1..1 for each unit cell."""
    column, row = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    return _table(key)[row & (TABLE - 1), column & (TABLE - 1)]


def step(value: Array, low: float, high: float) -> Array:
    """Rise smoothly from 0 at ``low`` to 1 at ``high``."""
    part = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(part * part * (3 - 2 * part), np.float32)


def cover(distance: Array, half: float, pixel: Array) -> Array:
    """Share of a pixel of width ``pixel`` that a line of half width ``half`` covers, all in metres."""
    reach = np.minimum(distance + pixel / 2, half) - np.maximum(distance - pixel / 2, -half)
    return np.asarray(np.clip(reach / pixel, 0, 1), np.float32)


def beat(place: Array, every: float) -> Array:
    """Signed distance to the nearest multiple of ``every``."""
    return place - every * np.round(place / every)


@dataclass(frozen=True)
class Ground:
    """Where the pixels of some rows hit the ground.

    Attributes:
        x: Across the street [m], [H, W].
        z: Ahead of the camera [m], [H, 1].
        along: Along the street, fixed to the world [m], [H, 1].
        wide: Width of a pixel across the street [m], [H, 1].
        deep: Length of a pixel along the street [m], [H, 1].
    """

    x: Array
    z: Array
    along: Array
    wide: Array
    deep: Array


def paint_backdrop(
    scene: Scene, camera: Camera, size: tuple[int, int], frame: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Paint sky and ground.

    Args:
        scene: The street.
        camera: Camera in the pixels of ``size``.
        size: Height and width [px].
        frame: Time [frames].

    Returns:
        Picture [H, W, 3] and labels [H, W], both as bytes.
    """
    height, width = size
    image, labels = np.empty((height, width, 3), np.uint8), np.empty((height, width), np.uint8)
    horizon = int(np.clip(np.ceil(camera.horizon - 0.5 + 1e-3), 0, height))
    columns = (np.arange(width, dtype=np.float32) + 0.5 - camera.centre) / camera.focal
    for rows in _bands(horizon, height, max(1, BAND // width)):
        slope = np.abs(np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5 - camera.horizon)
        slope = np.maximum(slope, 0.05)[:, None] / camera.focal
        if rows.start < horizon:
            colour, labels[rows] = paint_sky(scene, columns, slope, frame), SKY
        else:
            colour, labels[rows] = paint_ground(scene, camera, columns, slope, frame)
        image[rows] = (np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8)
    return image, labels


def _bands(horizon: int, height: int, stride: int) -> Iterator[slice]:
    """Bands of at most ``stride`` rows that do not cross the horizon."""
    for low, high in ((0, horizon), (horizon, height)):
        for first in range(low, high, stride):
            yield slice(first, min(first + stride, high))


def _blend(first: Array, second: Array | Colour, amount: Array) -> Array:
    return first + (np.asarray(second, np.float32) - first) * amount[..., None]


def paint_sky(scene: Scene, columns: Array, slope: Array, frame: float) -> Array:
    """Sky with clouds and the sun's glow, [H, W, 3]; columns [W] and slope [H, 1] are tangents."""
    light = scene.light
    fade = np.broadcast_to(1 - np.exp(-slope * 2.8), (slope.shape[0], columns.shape[0]))
    sky = _blend(np.broadcast_to(tint(light.haze), (*fade.shape, 3)), light.zenith, fade)
    if light.sun_ahead > 0.3:
        side = columns - light.sun_across / light.sun_ahead
        near = np.sqrt(side * side + (slope - light.sun_height / light.sun_ahead) ** 2)
        strength = 0.25 + 0.75 * light.sun
        sky = _blend(sky, light.glow, strength * np.exp(-near * 3.2) * 0.8)
        sky = _blend(sky, (1.0, 0.98, 0.92), strength * np.exp(-near * 22) * (light.clouds < 0.85))
    across = columns / (slope + 0.12) + scene.seed % 97
    depth = 1 / (slope + 0.12) + frame * 0.004 + scene.seed % 89
    return _clouds(scene, sky, (across, depth), slope)


def _clouds(scene: Scene, sky: Array, place: tuple[Array, Array], slope: Array) -> Array:
    light, (x, y) = scene.light, place
    bulk = noise(x * 0.9, y * 0.9, 1) + 0.5 * noise(x * 1.9, y * 1.9, 2)
    detail = 0.26 * noise(x * 4.1, y * 4.1, 3) + 0.14 * noise(x * 8.7, y * 8.7, 4)
    detail += 0.07 * noise(x * 18.0, y * 18.0, 5)
    cover_up = 0.62 - 1.2 * light.clouds
    thick = step(bulk + detail, cover_up, cover_up + 0.6)
    shade = step(bulk - noise(x * 1.9 + 0.25, y * 1.9 + 0.2, 2) * 0.5 + detail * 1.4, -0.5, 1.1)
    bright = np.minimum(1, tint(light.glow) * 0.62 + tint(light.haze) * 0.42)
    dark = tint(light.haze) * 0.55 + tint(light.zenith) * 0.38
    colour = _blend(np.broadcast_to(bright, sky.shape), dark, shade * (0.25 + 0.5 * light.clouds))
    return _blend(sky, colour, thick * 0.92 * step(np.broadcast_to(slope, thick.shape), 0.0, 0.16))


def paint_ground(
    scene: Scene, camera: Camera, columns: Array, slope: Array, frame: float
) -> tuple[Array, NDArray[np.uint8]]:
    """Road, pavements and lawns with their shadows: picture [H, W, 3] and labels [H, W]."""
    z = camera.height / slope
    ground = Ground(
        x=np.asarray(columns * z + camera.offset - camera.bend * z * z, np.float32),
        z=z,
        along=np.mod(z + np.float32(scene.speed * frame), PERIOD).astype(np.float32),
        wide=z / camera.focal,
        deep=z * z / (camera.focal * camera.height),
    )
    off = np.abs(ground.x)
    kerb = cover(off - scene.road - 50, 50, ground.wide)
    colour = _blend(_road(scene, ground), _pavement(scene, ground), kerb)
    stone = cover(off - scene.road - 0.09, 0.1, ground.wide)
    seam = cover(beat(ground.along, 0.9), 0.012, ground.deep)
    colour = _blend(colour, (0.72, 0.71, 0.69), stone * (1 - 0.5 * seam))
    colour = _blend(colour, (0.10, 0.10, 0.11), 0.55 * cover(off - scene.road + 0.06, 0.05, ground.wide))
    lawn = _lawn(scene, ground)
    green = tint([0.27, 0.38, 0.13]) * (1 + 0.3 * noise(ground.x * 3, ground.along * 3, 9))[..., None]
    colour = np.where(lawn[..., None], green, colour)
    colour = colour * _sunlight(scene, ground)
    haze = 1 - np.exp(-ground.z / scene.light.visibility)
    labels = np.where(lawn, LAWN, np.where(off < scene.road, ROAD, PAVEMENT)).astype(np.uint8)
    return _blend(colour, scene.light.haze, np.broadcast_to(haze, off.shape)), labels


def _grain(ground: Ground, every: float, key: int) -> Array:
    """Noise with bumps ``every`` metres that fades where pixels get too long for it."""
    keep = np.clip(1.6 - ground.deep / (2 * every), 0, 1)
    return noise(ground.x / every, ground.along / every, key) * keep


def _road(scene: Scene, ground: Ground) -> Array:
    x, off = ground.x, np.abs(ground.x)
    tone = 0.385 + 0.018 * _grain(ground, 3.0, 1) + 0.022 * _grain(ground, 0.35, 2)
    tone += 0.026 * _grain(ground, 0.06, 3) + 0.02 * _grain(ground, 0.022, 4)
    tracks = cover(np.abs(off - scene.lane) - 0.78, 0.28, np.maximum(ground.wide, 0.35))
    tone = tone + 0.022 * tracks - 0.03 * cover(off - scene.lane, 0.25, np.maximum(ground.wide, 0.5))
    patch = cells(x / 2.1 + 0.4, ground.along / 5.3, 6) > 0.82
    tone = tone - 0.035 * patch * (0.6 + 0.4 * _grain(ground, 0.5, 5))
    crack = np.abs(_grain(ground, 1.7, 8) + 0.3 * _grain(ground, 0.3, 9))
    tone = tone - 0.06 * np.clip(1 - crack / 0.02, 0, 1) * np.clip(1 - ground.z / 30, 0, 1)
    colour = tone[..., None] * tint([1.0, 1.0, 1.03])
    wear = 0.80 + 0.18 * _grain(ground, 0.25, 7)
    lines, yellow = _markings(scene, ground)
    colour = _blend(colour, (0.86, 0.86, 0.84), lines * wear)
    return _blend(colour, (0.80, 0.65, 0.20), yellow * wear)


def _markings(scene: Scene, ground: Ground) -> tuple[Array, Array]:
    """White and yellow paint on the road, each as coverage [H, W]."""
    x, along, off = ground.x, ground.along, np.abs(ground.x)
    zebra = np.abs(along - scene.crossing) < 1.6
    edge = cover(along - scene.crossing, 1.6, ground.deep)
    stripes = cover(beat(x, 1.1), 0.28, ground.wide) * edge * (off < scene.road - 0.3)
    stop = cover(np.abs(along - scene.crossing) - 2.6, 0.15, ground.deep) * (off < scene.road - 0.2)
    free = np.abs(along - scene.crossing) > 6.0
    dashes = cover(x, 0.065, ground.wide) * cover(beat(along, 6.0), 1.6, ground.deep)
    bays = cover(off - scene.road + 2.15, 0.045, ground.wide) * cover(beat(along, 1.0), 0.3, ground.deep)
    white = np.where(zebra | ~free, np.maximum(stripes, stop), np.maximum(dashes, 0.8 * bays))
    double = cover(off - scene.road + 0.22, 0.035, ground.wide) + cover(
        off - scene.road + 0.36, 0.035, ground.wide
    )
    return np.asarray(white, np.float32), np.asarray(double * ~free + 0 * x, np.float32)


def _pavement(scene: Scene, ground: Ground) -> Array:
    off, along = np.abs(ground.x) - scene.road, ground.along
    size = 0.6 + 0.3 * (scene.seed % 2)
    row = np.floor(off / size)
    shifted = along + 0.5 * size * 1.5 * np.mod(row, 2)
    slab = cells(off / size, shifted / (1.5 * size), 10)
    tone = 0.62 + 0.04 * slab * np.clip(1.3 - ground.deep / 1.5, 0, 1)
    tone = tone + 0.03 * _grain(ground, 0.9, 11) + 0.03 * _grain(ground, 0.07, 12)
    joint = np.maximum(
        cover(beat(off, size), 0.01, ground.wide), cover(beat(shifted, 1.5 * size), 0.012, ground.deep)
    )
    tone = tone * (1 - 0.26 * joint)
    warm = tint([1.04, 1.0, 0.93]) if scene.seed % 3 else tint([1.0, 1.0, 1.0])
    return np.asarray(tone[..., None] * warm, np.float32)


def _lawn(scene: Scene, ground: Ground) -> NDArray[np.bool_]:
    """Where front gardens are, [H, W]."""
    lawn = np.zeros(ground.x.shape, bool)
    for side in (-1, 1):
        green = np.zeros(ground.along.shape, bool)
        for house in scene.buildings:
            if house.setback and house.side == side:
                green |= (ground.along >= house.start) & (ground.along < house.start + house.length)
        lawn |= green & (side * ground.x > scene.line)
    return lawn


def _sunlight(scene: Scene, ground: Ground) -> Array:
    """Light that reaches the ground, [H, W, 3], with the soft shadows of houses and trees."""
    light = scene.light
    direct = tint(light.direct) * min(1.0, 0.35 + 0.6 * light.sun_height)
    if light.sun <= 0:
        return tint(light.ambient) + direct * np.ones((*ground.x.shape, 1), np.float32)
    side = 1 if light.sun_across > 0 else -1
    reach = abs(light.sun_across) / light.sun_height
    tops = np.zeros(ground.along.shape, np.float32)
    back = np.zeros(ground.along.shape, np.float32)
    for house in scene.buildings:
        if house.side == side:
            inside = (ground.along >= house.start) & (ground.along < house.start + house.length)
            tops = np.where(inside, house.height + (1.5 if house.shape == "gable" else 0.3), tops)
            back = np.where(inside, house.setback, back)
    gap = scene.line + back - side * ground.x - tops * reach
    sunny = step(gap + 0.15 * noise(ground.x, ground.along, 13), -0.25, 0.25)
    sunny = sunny * _tree_shadows(scene, ground, side * reach)
    return tint(light.ambient) * (0.86 + 0.14 * sunny[..., None]) + direct * sunny[..., None]


def _tree_shadows(scene: Scene, ground: Ground, reach: float) -> Array:
    light = np.ones(ground.x.shape, np.float32)
    dapple = (
        noise(ground.x * 2.2, ground.along * 2.2, 14) * 0.6 + noise(ground.x * 5, ground.along * 5, 15) * 0.4
    )
    for tree in scene.trees:
        middle = tree.x - reach * tree.height * 0.65
        rows = np.abs(ground.along[:, 0] - tree.z) < tree.spread * 0.75
        if abs(middle) > scene.line + 3 or not rows.any():
            continue
        away = ((ground.x[rows] - middle) / (tree.spread * 0.62)) ** 2
        away = away + ((ground.along[rows] - tree.z) / (tree.spread * 0.55)) ** 2
        light[rows] *= 1 - 0.8 * step(1 - away + 0.55 * dapple[rows], 0.0, 0.45)
    return light
