"""Pedestrians and bicyclists, made of limbs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from foveal.data.synthetic.canvas import Canvas, Point, mix, scale
from foveal.data.synthetic.scene import Colour, Person

PEDESTRIAN, BICYCLIST = 9, 10


@dataclass(frozen=True)
class Limb:
    """A tapered stick: two points [m] with their radii [m] and a colour."""

    start: Point
    end: Point
    radii: tuple[float, float]
    colour: Colour


def draw_limbs(canvas: Canvas, limbs: list[Limb], label: int) -> None:
    """Draw limbs far to near, each with a lit side toward the sun."""
    shift = 0.3 if canvas.light.sun_across > 0 else -0.3
    for limb in sorted(limbs, key=lambda limb: -(limb.start[2] + limb.end[2])):
        base = canvas.lit(limb.colour, 0.3 * shift, -0.6)
        canvas.limb((limb.start, limb.end), limb.radii, scale(base, 0.78), label)
        if not canvas.sharp(0.04, limb.start[2]):
            continue
        wide, narrow = limb.radii
        (x, y, z), (across, up, ahead) = limb.start, limb.end
        ends = ((x + shift * wide, y, z), (across + shift * narrow, up, ahead))
        canvas.limb(ends, (wide * 0.62, narrow * 0.62), scale(base, 1.08))


def draw_shadow(canvas: Canvas, x: float, z: float, size: tuple[float, float]) -> None:
    """A soft dark spot on the ground, half ``size`` [m] across and along."""
    for layer in range(7):
        grow = 1.1 - 0.13 * layer
        wide, long = size[0] * grow, size[1] * grow
        turns = [math.tau * turn / 14 for turn in range(14)]
        spot = [(x + wide * math.cos(turn), 0.0, z + long * math.sin(turn)) for turn in turns]
        canvas.fill(spot, (0.03, 0.03, 0.05), None, 0.1)


def draw_pedestrian(canvas: Canvas, person: Person, z: float, frame: float) -> None:
    """Draw someone walking along the street (heading -1 or 1) or across it (0)."""
    swing = math.sin(person.phase + frame * 0.35)
    draw_shadow(canvas, person.x, z, (0.34, 0.3))
    draw_limbs(canvas, walker(person, z, swing), PEDESTRIAN)


def walker(person: Person, z: float, swing: float) -> list[Limb]:
    """The limbs of someone walking; ``swing`` in -1..1 is the stride."""
    tall = person.height / 1.75

    def at(across: float, up: float, along: float) -> Point:
        """Body to street: along is where the person walks."""
        if person.heading == 0:
            return person.x + along * tall, up * tall, z + across * tall
        return person.x + across * tall, up * tall, z + person.heading * along * tall

    limbs = [limb for side in (-1, 1) for limb in _leg_and_arm(person, at, side, 0.26 * swing * side)]
    for flank in (-0.07, 0.07):
        limbs.append(Limb(at(flank, 1.34, 0), at(flank * 0.8, 0.95, 0), (0.15, 0.125), person.top))
    limbs.append(Limb(at(0, 1.42, 0), at(0, 1.52, 0), (0.055, 0.05), person.skin))
    limbs.append(Limb(at(0, 1.60, 0.0), at(0, 1.655, 0.0), (0.095, 0.1), person.skin))
    limbs.append(Limb(at(0, 1.64, -0.05), at(0, 1.69, -0.02), (0.105, 0.1), person.hair))
    if person.bag:
        dark = mix(person.top, (0, 0, 0), 0.6)
        limbs.append(Limb(at(0.0, 1.3, -0.17), at(0.0, 1.05, -0.19), (0.13, 0.15), dark))
    return limbs


def _leg_and_arm(
    person: Person, at: Callable[[float, float, float], Point], side: int, stride: float
) -> list[Limb]:
    """A leg and the arm above it; ``at`` maps (across, up, along) of the body to the street."""
    lift, sleeve = max(0.0, -stride), scale(person.top, 0.88)
    knee, foot = at(side * 0.1, 0.48, 0.6 * stride + 0.05), at(side * 0.1, 0.07 + 0.08 * lift, stride)
    toe = at(side * 0.11, 0.05 + 0.05 * lift, stride + 0.13)
    elbow, hand = at(side * 0.27, 1.12, -0.4 * stride), at(side * 0.27, 0.9, -0.9 * stride + 0.08)
    return [
        Limb(at(side * 0.09, 0.9, 0), knee, (0.105, 0.075), person.legs),
        Limb(knee, foot, (0.075, 0.052), person.legs),
        Limb(foot, toe, (0.052, 0.045), (0.12, 0.10, 0.09)),
        Limb(at(side * 0.2, 1.38, 0), elbow, (0.065, 0.052), sleeve),
        Limb(elbow, hand, (0.05, 0.038), sleeve),
        Limb(hand, at(side * 0.27, 0.84, -0.9 * stride + 0.09), (0.042, 0.035), person.skin),
    ]


def draw_bicyclist(canvas: Canvas, person: Person, z: float, frame: float) -> None:
    """Draw someone riding a bicycle along the street."""
    draw_shadow(canvas, person.x, z, (0.3, 0.95))
    turn = person.phase + frame * 0.5
    draw_limbs(canvas, bicycle(person, z) + rider(person, z, turn), BICYCLIST)


def bicycle(person: Person, z: float) -> list[Limb]:
    """Wheels, frame and handlebar; wheels are rings of short sticks."""
    paint = mix(person.top, (0.1, 0.1, 0.12), 0.5)

    def at(across: float, up: float, along: float) -> Point:
        return person.x + across, up, z + person.heading * along

    limbs = []
    for hub in (-0.52, 0.52):
        turns = [math.tau * spoke / 14 for spoke in range(14)]
        rim = [at(0.0, 0.34 + 0.32 * math.sin(turn), hub + 0.32 * math.cos(turn)) for turn in turns]
        for start, end in zip(rim, [*rim[1:], rim[0]], strict=True):
            limbs.append(Limb(start, end, (0.028, 0.028), (0.06, 0.06, 0.06)))
    back, saddle, crank = at(0, 0.34, -0.52), at(0, 0.88, -0.2), at(0, 0.3, -0.05)
    head, front = at(0, 0.86, 0.36), at(0, 0.34, 0.52)
    for start, end in ((saddle, crank), (crank, head), (head, saddle), (head, front), (back, crank)):
        limbs.append(Limb(start, end, (0.022, 0.022), paint))
    limbs.append(Limb(at(-0.3, 1.02, 0.3), at(0.3, 1.02, 0.3), (0.022, 0.022), (0.1, 0.1, 0.1)))
    limbs.append(Limb(at(0, 0.86, 0.36), at(0, 1.02, 0.3), (0.02, 0.02), (0.1, 0.1, 0.1)))
    limbs.append(Limb(at(-0.06, 0.9, -0.24), at(0.06, 0.9, -0.24), (0.05, 0.05), (0.08, 0.08, 0.08)))
    limbs.append(Limb(at(0, 0.66, -0.5), at(0, 0.72, -0.5), (0.045, 0.045), (0.75, 0.06, 0.06)))
    return limbs


def rider(person: Person, z: float, turn: float) -> list[Limb]:
    """Someone in the saddle; ``turn`` is the angle of the pedals."""

    def at(across: float, up: float, along: float) -> Point:
        return person.x + across, up, z + person.heading * along

    limbs = []
    for side in (-1, 1):
        angle = turn + (math.pi if side > 0 else 0.0)
        pedal = at(side * 0.12, 0.32 + 0.16 * math.sin(angle), -0.05 + 0.16 * math.cos(angle))
        knee = at(side * 0.13, 0.74 + 0.13 * math.sin(angle), 0.2 + 0.06 * math.cos(angle))
        limbs.append(Limb(at(side * 0.09, 0.95, -0.2), knee, (0.10, 0.075), person.legs))
        limbs.append(Limb(knee, pedal, (0.07, 0.05), person.legs))
        limbs.append(
            Limb(pedal, at(side * 0.12, 0.31 + 0.16 * math.sin(angle), 0.18), (0.05, 0.04), (0.1, 0.1, 0.1))
        )
        elbow = at(side * 0.27, 1.16, 0.16)
        limbs.append(Limb(at(side * 0.19, 1.42, 0.02), elbow, (0.06, 0.05), scale(person.top, 0.9)))
        limbs.append(Limb(elbow, at(side * 0.25, 1.04, 0.32), (0.05, 0.042), person.skin))
    for flank in (-0.08, 0.08):
        limbs.append(Limb(at(flank, 1.38, 0.02), at(flank * 0.8, 1.0, -0.2), (0.14, 0.125), person.top))
    limbs.append(Limb(at(0, 1.6, 0.12), at(0, 1.66, 0.12), (0.09, 0.1), person.skin))
    limbs.append(Limb(at(0, 1.7, 0.08), at(0, 1.72, 0.12), (0.115, 0.11), mix(person.top, (1, 1, 1), 0.4)))
    return limbs
