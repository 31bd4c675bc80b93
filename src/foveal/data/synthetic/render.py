"""Render a street scene: painter's algorithm from far to near, then a camera's finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from foveal.data.synthetic.backdrop import BAND, paint_backdrop
from foveal.data.synthetic.canvas import Camera, Canvas, chance, mix, scale
from foveal.data.synthetic.cars import draw_car
from foveal.data.synthetic.furniture import draw_fence, draw_post, draw_tree
from foveal.data.synthetic.houses import BUILDING, draw_bay, draw_end
from foveal.data.synthetic.people import draw_bicyclist, draw_pedestrian
from foveal.data.synthetic.scene import BEHIND, PERIOD, Scene, Tree

Drawing = tuple[float, Callable[[], None]]  # distance [m] and what to draw there
Array = NDArray[np.float32]

PANEL = 2.0  # [m] fences are drawn in panels of this length
FAR = PERIOD - BEHIND  # [m] nothing is drawn beyond


def render(scene: Scene, size: tuple[int, int], frame: float = 0.0) -> tuple[Tensor, Tensor]:
    """Render a street scene at a moment.

    Args:
        scene: The street.
        size: Height and width of the picture [px].
        frame: Time [frames]; with ``scene.speed`` above 0 the camera moves ahead as it grows.

    Returns:
        Picture, float32 RGB in 0..1 [3, H, W], and class ids, uint8 [H, W].

    Raises:
        ValueError: If ``size`` is not two positive integers.
    """
    height, width = checked(size)
    fine = supersampling(height * width)
    colours, classes = paint_backdrop(scene, place_camera(scene, (height, width), 1), (height, width), frame)
    image = Image.fromarray(colours).resize((width * fine, height * fine), Image.Resampling.NEAREST)
    labels = Image.fromarray(classes).resize(image.size, Image.Resampling.NEAREST)
    canvas = Canvas(image, labels, place_camera(scene, (height, width), fine), scene.light)
    draw_far_end(canvas, scene)
    for _, draw in sorted(drawings(canvas, scene, frame), key=lambda drawing: -drawing[0]):
        draw()
    picture = finish(image.reduce(fine) if fine > 1 else image, scene, frame)
    ids = np.array(labels)[fine // 2 :: fine, fine // 2 :: fine]
    return torch.from_numpy(picture), torch.from_numpy(np.ascontiguousarray(ids))


def checked(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size if it is two positive integers."""
    good = isinstance(size, (tuple, list)) and len(size) == 2
    if not good or not all(
        isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size
    ):
        raise ValueError(f"size must be two positive integers (height, width) in pixels, got {size!r}.")
    return size[0], size[1]


def supersampling(pixels: int) -> int:
    """How many samples a pixel gets per side: fewer for huge pictures."""
    return 3 if pixels <= 1_000_000 else 2 if pixels <= 6_000_000 else 1


def place_camera(scene: Scene, size: tuple[int, int], fine: int) -> Camera:
    """The scene's camera for a picture size [px] with ``fine`` samples per pixel and side."""
    height, width = size
    return Camera(
        focal=scene.focal * max(height, 0.75 * width) * fine,
        centre=width / 2 * fine,
        horizon=scene.horizon * height * fine,
        height=scene.eye,
        offset=scene.drive * scene.lane,
        bend=scene.bend,
    )


def draw_far_end(canvas: Canvas, scene: Scene) -> None:
    """Close the street with a hazy row of houses and trees."""
    tone = canvas.lit(scale(mix((0.55, 0.50, 0.46), scene.light.haze, 0.3), 0.9))
    bend = scene.bend * FAR * FAR
    for count in range(24):
        x = (count - 12) * 7.0 - bend
        top = 6.0 + 9.0 * chance(scene.seed, count, 1)
        canvas.fill([(x, 0, FAR), (x + 7, 0, FAR), (x + 7, top, FAR), (x, top, FAR)], tone, BUILDING)
    for count in range(10):
        x = (count - 5) * 13.0 - bend + 8 * chance(scene.seed, count, 2)
        draw_tree(canvas, Tree(x, 0.0, 8.0, 7.0, (0.30, 0.44, 0.18), count % 8), FAR - 1)


def drawings(canvas: Canvas, scene: Scene, frame: float) -> Iterator[Drawing]:
    """Everything that is to be drawn, each with its distance [m]."""
    yield from _houses(canvas, scene, frame)
    yield from _standing(canvas, scene, frame)
    yield from _moving(canvas, scene, frame)


def _houses(canvas: Canvas, scene: Scene, frame: float) -> Iterator[Drawing]:
    for house in scene.buildings:
        for index in range(house.bays):
            z = scene.ahead(house.start + index * house.bay, frame)
            if z + house.bay > 0 and z < FAR:
                yield z + house.bay / 2, partial(draw_bay, canvas, house, scene.line, z, index)
        z = scene.ahead(house.start, frame)
        if 0.5 < z < FAR:
            yield z + house.bay / 2 + 0.01, partial(draw_end, canvas, house, scene.line, z)


def _standing(canvas: Canvas, scene: Scene, frame: float) -> Iterator[Drawing]:
    for tree in scene.trees:
        z = scene.ahead(tree.z, frame)
        yield z, partial(draw_tree, canvas, tree, z)
    for post in scene.posts:
        z = scene.ahead(post.z, frame)
        yield z, partial(draw_post, canvas, post, z)
    for fence in scene.fences:
        panels = max(1, round(fence.length / PANEL))
        for panel in range(panels):
            z = scene.ahead(fence.z + panel * fence.length / panels, frame)
            yield z + PANEL / 2, partial(draw_fence, canvas, fence, z, fence.length / panels)


def _moving(canvas: Canvas, scene: Scene, frame: float) -> Iterator[Drawing]:
    for car in scene.cars:
        z = scene.ahead(car.z, frame, car.pace)
        if z > 0.8 and (z > 4.5 or abs(car.x - canvas.camera.offset) > 1.6):
            yield z, partial(draw_car, canvas, car, z)
    for person in scene.pedestrians:
        z = scene.ahead(person.z, frame, person.heading * person.pace)
        yield z, partial(draw_pedestrian, canvas, person, z, frame)
    for person in scene.bicyclists:
        z = scene.ahead(person.z, frame, person.heading * 3.5 * person.pace)
        if z > 1.2:
            yield z, partial(draw_bicyclist, canvas, person, z, frame)


def finish(image: Image.Image, scene: Scene, frame: float) -> Array:
    """Bloom, contrast, vignette and sensor noise: the camera's part, [3, H, W] in 0..1."""
    width, height = image.size
    small = image.resize((max(1, width // 4), max(1, height // 4)), Image.Resampling.BOX)
    bright = small.point([max(0, value - 175) * 3 for value in range(256)] * 3)
    blurred = bright.filter(ImageFilter.GaussianBlur(max(small.size) / 45))
    bloom = blurred.resize(image.size, Image.Resampling.BILINEAR)
    picture = np.empty((3, height, width), np.float32)
    random = np.random.default_rng([scene.seed & 0xFFFFFFFF, round(frame * 1000) & 0xFFFFFFFF])
    across = np.linspace(-1, 1, width, dtype=np.float32) ** 2
    stride = max(1, BAND // width)
    for first in range(0, height, stride):
        rows = slice(first, min(first + stride, height))
        box = (0, rows.start, width, rows.stop)
        part = np.asarray(image.crop(box), np.float32) / 255
        part += np.asarray(bloom.crop(box), np.float32) * (0.16 / 255)
        part = np.minimum(part, 1)
        part += 0.42 * part * (1 - part)
        part += 0.45 * (part * part * (3 - 2 * part) - part)
        down = np.linspace(-1, 1, height, dtype=np.float32)[rows, None] ** 2
        part *= (1 - 0.11 * (across + down))[..., None]
        part += random.standard_normal(part.shape, np.float32) * np.float32(0.010)
        picture[:, rows] = np.clip(part, 0, 1).transpose(2, 0, 1)
    return picture
