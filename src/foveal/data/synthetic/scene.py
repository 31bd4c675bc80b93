"""The world of a street scene: everything that is drawn at random, as plain values.

A street is ``PERIOD`` metres long and repeats, so a moving camera never reaches its end. Lengths are in
metres, times in frames, colours are RGB in 0..1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Colour = tuple[float, float, float]
Roof = Literal["gable", "flat"]
Body = Literal["sedan", "hatch", "wagon", "van"]
Furniture = Literal["lamp", "traffic_light", "sign_disc", "sign_triangle", "sign_board", "bollard"]

PERIOD = 240.0  # [m] the street repeats after this length
BEHIND = 10.0  # [m] things stay in the world this far behind the camera

WALLS: tuple[Colour, ...] = (
    (0.62, 0.36, 0.27), (0.55, 0.30, 0.24), (0.78, 0.68, 0.54), (0.84, 0.80, 0.72), (0.70, 0.60, 0.46),
    (0.66, 0.50, 0.38), (0.74, 0.74, 0.72), (0.86, 0.76, 0.60), (0.58, 0.62, 0.66), (0.80, 0.62, 0.50),
)  # fmt: skip
PAINTS: tuple[Colour, ...] = (
    (0.72, 0.08, 0.09), (0.10, 0.20, 0.48), (0.82, 0.83, 0.84), (0.12, 0.13, 0.15), (0.50, 0.53, 0.56),
    (0.90, 0.90, 0.88), (0.13, 0.32, 0.30), (0.34, 0.37, 0.42), (0.20, 0.42, 0.66), (0.86, 0.62, 0.12),
)  # fmt: skip
CLOTHES: tuple[Colour, ...] = (
    (0.70, 0.16, 0.16), (0.16, 0.26, 0.50), (0.85, 0.82, 0.74), (0.18, 0.19, 0.22), (0.24, 0.42, 0.32),
    (0.88, 0.66, 0.20), (0.48, 0.34, 0.52), (0.36, 0.56, 0.70), (0.56, 0.40, 0.28),
)  # fmt: skip
SKINS: tuple[Colour, ...] = ((0.90, 0.72, 0.60), (0.78, 0.58, 0.45), (0.55, 0.38, 0.28), (0.36, 0.25, 0.19))
LEAVES: tuple[Colour, ...] = ((0.36, 0.44, 0.18), (0.28, 0.38, 0.19), (0.44, 0.46, 0.20), (0.60, 0.43, 0.17))


@dataclass(frozen=True)
class Light:
    """Sun, sky and air.

    Attributes:
        sun_across: Sun direction across the street, right is positive.
        sun_ahead: Sun direction along the street, ahead is positive.
        sun_height: Elevation of the sun as a tangent.
        sun: How much the sun casts shadows, 0 (overcast) to 1.
        direct: Colour and strength of the sunlight.
        ambient: Colour and strength of the light from the sky.
        zenith: Sky colour overhead.
        haze: Colour of the far air and of the sky at the horizon.
        glow: Colour of the sky around the sun.
        visibility: Distance over which haze gathers [m].
        clouds: Cloud cover, 0 to 1.
        night: How much lamps and windows shine, 0 to 1.
    """

    sun_across: float
    sun_ahead: float
    sun_height: float
    sun: float
    direct: Colour
    ambient: Colour
    zenith: Colour
    haze: Colour
    glow: Colour
    visibility: float
    clouds: float
    night: float


@dataclass(frozen=True)
class Building:
    """A house: a row of equal bays along one side (-1 left, 1 right) of the street."""

    side: int
    start: float
    bay: float
    bays: int
    floors: int
    storey: float
    setback: float
    wall: Colour
    trim: Colour
    roof: Colour
    shape: Roof
    brick: bool
    shop: bool
    key: int

    @property
    def length(self) -> float:
        """Length along the street [m]."""
        return self.bay * self.bays

    @property
    def height(self) -> float:
        """Height of the eaves [m]."""
        return self.floors * self.storey + 0.7


@dataclass(frozen=True)
class Car:
    """A parked (pace 0) or driving car; heading 1 shows its back, -1 its front."""

    x: float
    z: float
    heading: int
    pace: float
    body: Body
    paint: Colour
    key: int


@dataclass(frozen=True)
class Person:
    """Someone walking (pace along the street) or cycling."""

    x: float
    z: float
    heading: int
    pace: float
    height: float
    phase: float
    top: Colour
    legs: Colour
    skin: Colour
    hair: Colour
    bag: bool


@dataclass(frozen=True)
class Tree:
    """A tree: trunk and a crown of one of a few leaf shapes."""

    x: float
    z: float
    height: float
    spread: float
    leaf: Colour
    shape: int


@dataclass(frozen=True)
class Post:
    """Street furniture on a pole."""

    x: float
    z: float
    kind: Furniture
    key: int


@dataclass(frozen=True)
class Fence:
    """A fence along the street, from ``z`` over ``length``; railings are see-through, boards are not."""

    x: float
    z: float
    length: float
    height: float
    boards: bool
    colour: Colour


@dataclass(frozen=True)
class Scene:
    """A whole street: layout, camera, light and everything that stands or moves in it.

    Attributes:
        seed: The number it was drawn from.
        road: Half width of the road [m].
        pavement: Width of each pavement [m].
        drive: Side on which one drives, -1 left or 1 right.
        speed: Camera speed [m/frame]; 0 is a still camera.
        focal: Focal length over the picture's reference height.
        horizon: Row of the horizon as a share of the height.
        eye: Camera height [m].
        bend: Bend of the street [1/m].
        crossing: Where the zebra crossing is [m].
    """

    seed: int
    road: float
    pavement: float
    drive: int
    speed: float
    focal: float
    horizon: float
    eye: float
    bend: float
    crossing: float
    light: Light
    buildings: tuple[Building, ...]
    cars: tuple[Car, ...]
    trees: tuple[Tree, ...]
    posts: tuple[Post, ...]
    fences: tuple[Fence, ...]
    pedestrians: tuple[Person, ...]
    bicyclists: tuple[Person, ...]

    @staticmethod
    def random(seed: int) -> Scene:
        """Draw a street; the same seed always gives the same one."""
        from foveal.data.synthetic.draw import draw_scene

        return draw_scene(seed)

    @property
    def lane(self) -> float:
        """Distance of the middle of a driving lane from the middle of the street [m]."""
        return (self.road - 2.1) / 2

    @property
    def line(self) -> float:
        """Distance of the building line from the middle of the street [m]."""
        return self.road + self.pavement

    def ahead(self, z: float, frame: float, pace: float = 0.0) -> float:
        """Distance ahead of the camera at a time of something that starts at ``z`` [m]."""
        return math.fmod(z + (pace - self.speed) * frame + BEHIND, PERIOD) % PERIOD - BEHIND
