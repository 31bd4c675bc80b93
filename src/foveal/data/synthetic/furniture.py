"""Things that stand in a street: trees, poles, traffic lights, signs and fences."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from foveal.data.synthetic.backdrop import Array, step, tint
from foveal.data.synthetic.canvas import ROUND, Canvas, Point, chance, mix, scale
from foveal.data.synthetic.scene import Colour, Fence, Light, Post, Tree

POLE, TREE, SIGN, FENCE = 2, 5, 6, 7
LEAF = 256  # [px] side of a crown before it is scaled into the picture
METAL: Colour = (0.34, 0.36, 0.37)


def _lattice(random: np.random.Generator, cells: int) -> Array:
    """Smooth noise in -1..1 with ``cells`` bumps a side, [LEAF, LEAF]."""
    values = random.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(values).resize((LEAF, LEAF), Image.Resampling.BICUBIC))


@lru_cache(maxsize=16)
def crown(shape: int) -> tuple[Array, Array, Array]:
    """A crown of leaves: density (positive inside), slant to the right and brightness, each [LEAF, LEAF]."""
    random = np.random.default_rng([5, shape])
    row, column = np.mgrid[-1 : 1 : LEAF * 1j, -1 : 1 : LEAF * 1j].astype(np.float32)
    density = np.full((LEAF, LEAF), -9, np.float32)
    slant, lift = np.zeros_like(density), np.zeros_like(density)
    for lobe in range(13):
        angle, far = 2.4 * lobe + random.uniform(-0.4, 0.4), 0.17 * np.sqrt(lobe)
        x, y, radius = far * np.cos(angle), far * np.sin(angle) * 0.95, random.uniform(0.30, 0.44)
        here = 1 - ((column - x) ** 2 + (row - y) ** 2) / radius**2
        nearer = here > density
        density = np.where(nearer, here, density)
        slant = np.where(nearer, (column - x) / radius, slant)
        lift = np.where(nearer, (y - row) / radius, lift)
    rough, fine = _lattice(random, 14), _lattice(random, 40)
    leaves, tips = _lattice(random, 80), _lattice(random, 128)
    density = density + 0.36 * rough + 0.38 * fine + 0.46 * leaves + 0.2 * tips
    bright = 0.34 * lift - 0.26 * row + 0.2 * rough + 0.26 * fine + 0.42 * leaves + 0.34 * tips
    return density, np.clip(slant + 0.35 * column, -1.2, 1.2), bright


@lru_cache(maxsize=48)
def foliage(light: Light, shape: int, leaf: Colour) -> tuple[Image.Image, Image.Image]:
    """A crown lit by the scene's sun: RGB picture and float mask."""
    density, slant, bright = crown(shape)
    sun = light.sun_across * (0.3 + 0.2 * light.sun) * slant
    value = np.clip(0.46 + 0.42 * bright + sun - 0.12 * max(0.0, light.sun_ahead), 0, 1)[..., None]
    dark, middle = tint(scale(leaf, 0.25)), tint(scale(leaf, 0.85))
    high = tint(mix(scale(leaf, 1.55), (0.95, 0.92, 0.45), 0.2))
    lower, upper = step(value, 0.0, 0.55), step(value, 0.45, 1.0)
    colour = (dark + (middle - dark) * lower) * (1 - upper) + high * upper
    tone = tint(light.ambient) + tint(light.direct) * (0.35 + 0.45 * upper)
    picture = (np.clip(colour * tone, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(picture), Image.fromarray(density)


def draw_tree(canvas: Canvas, tree: Tree, z: float) -> None:
    """Draw a tree with its trunk, two boughs and a crown."""
    bark, fork = canvas.lit((0.30, 0.24, 0.19), -0.3, -0.4), tree.height * 0.5
    foot, top = (tree.x, 0.0, z), (tree.x, fork, z)
    canvas.limb((foot, top), (0.024 * tree.height, 0.015 * tree.height), scale(bark, 0.8), TREE)
    side = 0.008 * tree.height * (1 if canvas.light.sun_across > 0 else -1)
    edge = ((tree.x + side, 0.0, z), (tree.x + side * 0.5, fork, z))
    canvas.limb(edge, (0.011 * tree.height, 0.006 * tree.height), scale(bark, 1.25))
    for lean in (-0.2, 0.22):
        bough = (tree.x + lean * tree.spread, tree.height * 0.72, z)
        canvas.limb(((tree.x, fork * 0.8, z), bough), (0.012 * tree.height, 0.005 * tree.height), bark, TREE)
    half, low = tree.spread * 0.62, tree.height * 0.3
    corners = ((tree.x - half, tree.height, z), (tree.x + half, low, z))
    canvas.stamp(corners, *foliage(canvas.light, tree.shape, tree.leaf), TREE)


def draw_post(canvas: Canvas, post: Post, z: float) -> None:
    """Draw a lamp post, a traffic light, a sign or a bollard."""
    if post.kind == "lamp":
        _lamp(canvas, post, z)
    elif post.kind == "traffic_light":
        _traffic_light(canvas, post, z)
    elif post.kind == "bollard":
        canvas.limb(((post.x, 0.0, z), (post.x, 0.95, z)), (0.07, 0.06), canvas.lit((0.14, 0.14, 0.15)), POLE)
        canvas.limb(((post.x, 0.78, z), (post.x, 0.84, z)), (0.07, 0.07), canvas.lit((0.85, 0.83, 0.75)))
    else:
        _sign(canvas, post, z)


def _pole(canvas: Canvas, start: Point, end: Point, radii: tuple[float, float]) -> None:
    """A metal pole with a bright edge toward the sun."""
    metal = canvas.lit(METAL)
    canvas.limb((start, end), radii, scale(metal, 0.75), POLE)
    side = 0.35 if canvas.light.sun_across > 0 else -0.35
    ends = tuple((x + side * radius, y, z) for (x, y, z), radius in zip((start, end), radii, strict=True))
    canvas.limb((ends[0], ends[1]), (radii[0] * 0.4, radii[1] * 0.4), scale(metal, 1.35))


def _lamp(canvas: Canvas, post: Post, z: float) -> None:
    side = 1 if post.x > 0 else -1
    arm, tip = (post.x - side * 0.5, 7.05, z), (post.x - side * 1.5, 7.3, z)
    _pole(canvas, (post.x, 0.0, z), (post.x, 1.0, z), (0.12, 0.10))
    _pole(canvas, (post.x, 1.0, z), (post.x, 6.6, z), (0.075, 0.055))
    _pole(canvas, (post.x, 6.6, z), arm, (0.055, 0.045))
    _pole(canvas, arm, tip, (0.045, 0.04))
    head = ((tip[0] + side * 0.1, 7.27, z), (tip[0] - side * 0.55, 7.32, z))
    canvas.limb(head, (0.09, 0.06), canvas.lit((0.25, 0.26, 0.27)), POLE)
    glow = mix(canvas.lit((0.8, 0.8, 0.78)), (1.0, 0.9, 0.66), canvas.light.night)
    canvas.limb(((tip[0], 7.21, z), (tip[0] - side * 0.45, 7.25, z)), (0.05, 0.04), glow, POLE)
    if canvas.light.night:
        for ring in range(16):
            middle = (tip[0] - side * 0.22, 7.22, z)
            canvas.disc(middle, 1.5 * (1 - ring / 16) ** 1.5 + 0.1, (1.0, 0.84, 0.55), None, 0.022)


def _traffic_light(canvas: Canvas, post: Post, z: float) -> None:
    _pole(canvas, (post.x, 0.0, z), (post.x, 3.0, z), (0.07, 0.06))
    box = [(-0.2, 2.55), (0.2, 2.55), (0.2, 3.55), (-0.2, 3.55)]
    back = [(-0.27, 2.48), (0.27, 2.48), (0.27, 3.62), (-0.27, 3.62)]
    canvas.fill([(post.x + x, y, z) for x, y in back], canvas.lit((0.88, 0.88, 0.86)), SIGN)
    canvas.fill([(post.x + x, y, z) for x, y in box], (0.05, 0.05, 0.05), SIGN)
    lamps: tuple[Colour, ...] = ((1.0, 0.16, 0.10), (1.0, 0.68, 0.10), (0.16, 0.95, 0.45))
    shining = int(chance(post.key, 1) * 2) * 2
    for index, lamp in enumerate(lamps):
        middle = (post.x, 3.37 - 0.32 * index, z)
        canvas.disc(middle, 0.12, lamp if index == shining else scale(lamp, 0.22), SIGN)
        if index == shining:
            canvas.disc(middle, 0.06, mix(lamp, (1, 1, 1), 0.5), SIGN)
            canvas.disc(middle, 0.34, lamp, None, 0.12)


def _sign(canvas: Canvas, post: Post, z: float) -> None:
    _pole(canvas, (post.x, 0.0, z), (post.x, 2.9, z), (0.038, 0.038))
    red, white = canvas.lit((0.80, 0.08, 0.10)), canvas.lit((0.95, 0.95, 0.93))
    blue, dark = canvas.lit((0.08, 0.26, 0.62)), (0.08, 0.08, 0.09)
    middle = (post.x, 2.6, z)
    if post.kind == "sign_disc":
        canvas.disc(middle, 0.34, red, SIGN)
        canvas.disc(middle, 0.26, white if chance(post.key, 2) < 0.6 else blue, SIGN)
        bar = [(-0.14, 2.54), (0.14, 2.54), (0.14, 2.66), (-0.14, 2.66)]
        canvas.fill([(post.x + x, y, z) for x, y in bar], dark if chance(post.key, 2) < 0.6 else white, SIGN)
    elif post.kind == "sign_triangle":
        for size, colour in ((0.42, red), (0.30, white)):
            corners = [(-size, -0.58 * size), (size, -0.58 * size), (0.0, 1.16 * size)]
            canvas.fill([(post.x + x, 2.55 + y, z) for x, y in corners], colour, SIGN)
        canvas.fill([(post.x + 0.09 * x, 2.56 + 0.13 * y, z) for x, y in ROUND], dark, SIGN)
    else:
        _board(canvas, post, z)


def _board(canvas: Canvas, post: Post, z: float) -> None:
    """A rectangular sign with lines of writing."""
    white, blue = canvas.lit((0.95, 0.95, 0.93)), canvas.lit((0.08, 0.26, 0.62))
    board = blue if chance(post.key, 3) < 0.6 else canvas.lit((0.10, 0.42, 0.24))
    for grow, colour in ((0.04, white), (0.0, board)):
        wide, low, high = 0.42 + grow, 2.12 - grow, 2.92 + grow
        corners = [(-wide, low), (wide, low), (wide, high), (-wide, high)]
        canvas.fill([(post.x + x, y, z) for x, y in corners], colour, SIGN)
    for line in (2.72, 2.5, 2.28):
        wide = 0.16 + 0.16 * chance(post.key, int(line * 100))
        text = [(-0.32, line - 0.05), (-0.32 + 2 * wide, line - 0.05), (-0.32 + 2 * wide, line + 0.05)]
        corners = [*text, (-0.32, line + 0.05)]
        canvas.fill([(post.x + x, y, z) for x, y in corners], white, SIGN)


def draw_fence(canvas: Canvas, fence: Fence, z: float, length: float) -> None:
    """Draw one panel of a fence: ``length`` metres from z on."""
    side = -1.0 if fence.x > 0 else 1.0
    colour, x, top = canvas.lit(fence.colour, side * 0.8, -0.3), fence.x, fence.height
    far = z + length
    if fence.boards:
        body = [(x, 0.0, z), (x, 0.0, far), (x, top, far), (x, top, z)]
        canvas.fill(body, colour, FENCE)
    for low in (0.12, top - 0.16):
        rail = [(x, low, z), (x, low, far), (x, low + 0.08, far), (x, low + 0.08, z)]
        canvas.fill(rail, scale(colour, 1.1), FENCE)
    for bar in range(round(length / 0.2)):
        near = z + bar * 0.2
        wide, tone = (0.015, scale(colour, 0.55)) if fence.boards else (0.035, colour)
        picket = [(x, 0.0, near), (x, 0.0, near + wide), (x, top, near + wide), (x, top, near)]
        canvas.fill(picket, tone, FENCE)
    canvas.limb(((x, 0.0, z), (x, top + 0.08, z)), (0.05, 0.05), scale(colour, 0.85), FENCE)
