"""Cars: a side profile swept across the width, with glass, lights and wheels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from foveal.data.synthetic.canvas import ROUND, Canvas, Point, chance, mix, scale
from foveal.data.synthetic.scene import Body, Car, Colour

CAR = 8
RUBBER: Colour = (0.06, 0.06, 0.07)
BELT = 0.93  # [m] height of the bottom of the side windows

# Side profiles from the back to the front as (along, up) [m]; the glass of back and front follows from them.
PROFILES: dict[Body, tuple[tuple[float, float], ...]] = {
    "sedan": (
        (-2.18, 0.30), (-2.26, 0.60), (-2.18, 0.94), (-1.62, 1.00), (-0.98, 1.40), (-0.30, 1.47),
        (0.42, 1.42), (1.18, 0.98), (2.02, 0.80), (2.20, 0.60), (2.14, 0.28),
    ),
    "hatch": (
        (-1.86, 0.30), (-1.95, 0.58), (-1.88, 0.95), (-1.82, 1.00), (-1.48, 1.42), (-0.70, 1.52),
        (0.30, 1.46), (1.05, 1.00), (1.82, 0.80), (2.00, 0.60), (1.94, 0.28),
    ),
    "wagon": (
        (-2.20, 0.34), (-2.28, 0.66), (-2.22, 1.02), (-2.18, 1.06), (-1.88, 1.58), (-0.60, 1.68),
        (0.42, 1.62), (1.12, 1.10), (2.02, 0.94), (2.22, 0.68), (2.14, 0.32),
    ),
    "van": (
        (-2.40, 0.36), (-2.46, 0.66), (-2.42, 1.10), (-2.40, 1.16), (-2.26, 1.98), (-1.00, 2.06),
        (1.10, 2.02), (1.80, 1.20), (2.26, 1.02), (2.44, 0.68), (2.40, 0.34),
    ),
}  # fmt: skip
BACK_PANEL, BACK_GLASS, WINDSCREEN, FRONT_PANEL = 1, 3, 6, 8


@dataclass(frozen=True)
class Shell:
    """A car in place: maps (across, up, along) of the car to the street.

    Attributes:
        canvas: Where to draw.
        car: The car.
        z: Its middle, ahead of the camera [m].
    """

    canvas: Canvas
    car: Car
    z: float

    def half(self, up: float, along: float = 0.0) -> float:
        """Half width at a place [m]: widest at the belt amidships, narrower at roof, sill and ends."""
        profile = PROFILES[self.car.body]
        roof = profile[5][1]
        end = max(0.0, abs(along) - profile[-2][0] + 0.75) / 0.85
        lean = max(0.0, up - BELT) / (roof - BELT)
        tuck = 0.05 * max(0.0, 0.6 - up)
        share = 1.0 - (0.14 if roof > 1.9 else 0.27) * lean - tuck - 0.11 * end * end
        return (0.98 if self.car.body == "van" else 0.90) * share

    def at(self, across: float, up: float, along: float) -> Point:
        """A point of the car in the street [m]."""
        return self.car.x + across, up, self.z + self.car.heading * along

    def beside(
        self, side: int, corners: Sequence[tuple[float, float]], colour: Colour, alpha: float = 1.0
    ) -> None:
        """Fill a patch of (along, up) corners on one side of the car."""
        place = [self.at(side * self.half(up, along), up, along) for along, up in corners]
        self.canvas.fill(place, colour, CAR if alpha >= 1 else None, alpha)

    def panel(self, first: int, low: float, high: float, left: float, right: float) -> list[Point]:
        """A patch of the swept strip after profile point ``first``; all shares of its height and width."""
        profile = PROFILES[self.car.body]
        (along, up), (beyond, above) = profile[first], profile[first + 1]
        corners = []
        for part, side in ((low, left), (low, right), (high, right), (high, left)):
            height, place = up + part * (above - up), along + part * (beyond - along)
            corners.append(self.at(side * self.half(height, place), height, place))
        return corners


def draw_car(canvas: Canvas, car: Car, z: float) -> None:
    """Draw a car whose middle is z metres ahead, with its shadow."""
    shell = Shell(canvas, car, z)
    _shadow(shell)
    _tyres(shell)
    _strips(shell)
    middle = car.x - canvas.camera.offset + canvas.camera.bend * z * z
    if abs(middle) > 0.9:
        _flank(shell, -1 if middle > 0 else 1)
    if car.heading > 0:
        _back(shell)
    else:
        _front(shell)


def _shadow(shell: Shell) -> None:
    reach = PROFILES[shell.car.body][-2][0]
    for layer in range(12):
        grow = 0.45 - 0.05 * layer
        wide, long = 0.9 + grow, reach + grow
        outline = [(wide * x * 1.12, long * y * 1.12) for x, y in ROUND]
        corners = [shell.at(max(-wide, min(wide, x)), 0.0, max(-long, min(long, y))) for x, y in outline]
        shell.canvas.fill(corners, (0.03, 0.03, 0.05), None, 0.05 + 0.016 * layer)


def _tyres(shell: Shell) -> None:
    """The underside and the tyres of the near axle, as seen from the end."""
    near = -1.35 * shell.car.heading
    shell.canvas.fill(
        [shell.at(x, y, near) for x, y in ((-0.84, 0.14), (0.84, 0.14), (0.84, 0.5), (-0.84, 0.5))],
        scale(RUBBER, 0.4),
        CAR,
    )
    for side in (-1, 1):
        corners = [(side * 0.62, 0.0), (side * 0.84, 0.0), (side * 0.84, 0.55), (side * 0.62, 0.55)]
        shell.canvas.fill([shell.at(x, y, near) for x, y in corners], RUBBER, CAR)


def _strips(shell: Shell) -> None:
    """The swept strips of the shell that face the camera, far ones first."""
    car, canvas, profile = shell.car, shell.canvas, PROFILES[shell.car.body]
    order = range(len(profile) - 1)
    eye = canvas.camera.height
    for first in reversed(order) if car.heading > 0 else order:
        (along, up), (beyond, above) = profile[first], profile[first + 1]
        rise, run = beyond - along, -(above - up)  # the normal, up and along the car
        toward = rise * (eye - up) - car.heading * run * (shell.z + car.heading * along)
        if toward <= 0:
            continue
        length = (rise * rise + run * run) ** 0.5
        shine = 0.5 * max(0.0, rise / length)
        paint = canvas.lit(car.paint, 0.0, car.heading * run / length)
        paint = mix(scale(paint, 0.82 + 0.3 * shine), canvas.light.haze, 0.3 * shine)
        canvas.fill(shell.panel(first, 0.0, 1.0, -1.0, 1.0), paint, CAR)


def _glass(shell: Shell, first: int) -> None:
    """The rear window or the windscreen with the sky in it."""
    light = shell.canvas.light
    sky = mix(light.haze, light.zenith, 0.4)
    shell.canvas.fill(shell.panel(first, 0.08, 0.94, -0.9, 0.9), (0.07, 0.08, 0.10), CAR)
    shell.canvas.fill(shell.panel(first, 0.45, 0.92, -0.87, 0.87), sky, None, 0.26)
    shell.canvas.fill(shell.panel(first, 0.72, 0.92, -0.87, 0.87), sky, None, 0.24)
    for seat in (-0.42, 0.42):
        shell.canvas.fill(
            shell.panel(first, 0.10, 0.5, seat - 0.13, seat + 0.13), (0.02, 0.02, 0.02), None, 0.5
        )
    shell.canvas.fill(shell.panel(first, 0.1, 0.92, -0.55, -0.25), sky, None, 0.12)


def _back(shell: Shell) -> None:
    canvas, night = shell.canvas, shell.canvas.light.night
    _glass(shell, BACK_GLASS)
    trim = scale(canvas.lit(shell.car.paint), 0.55)
    canvas.fill(shell.panel(0, 0.0, 0.38, -0.99, 0.99), scale(canvas.lit((0.16, 0.16, 0.17)), 0.8), CAR)
    canvas.fill(shell.panel(0, 0.86, 1.0, -0.99, 0.99), (0.02, 0.02, 0.03), None, 0.3)
    canvas.fill(shell.panel(BACK_PANEL, 0.02, 0.06, -0.98, 0.98), trim, CAR)
    canvas.fill(shell.panel(BACK_PANEL, 0.93, 0.98, -0.96, 0.96), mix(trim, (1, 1, 1), 0.35), CAR)
    canvas.fill(shell.panel(0, 0.55, 0.95, -0.3, 0.3), canvas.lit((0.92, 0.80, 0.30)), CAR)
    canvas.fill(shell.panel(0, 0.66, 0.84, -0.24, 0.24), (0.1, 0.1, 0.1), None, 0.7)
    braking = chance(shell.car.key, 3) < 0.35 or night > 0
    red = (1.0, 0.16, 0.10) if braking and shell.car.pace else (0.62, 0.05, 0.06)
    for side in (-1, 1):
        canvas.fill(shell.panel(BACK_PANEL, 0.3, 0.9, side * 0.66, side * 0.97), red, CAR)
        canvas.fill(shell.panel(BACK_PANEL, 0.32, 0.48, side * 0.7, side * 0.93), (0.95, 0.62, 0.40), CAR)
        canvas.fill(
            shell.panel(BACK_PANEL, 0.7, 0.86, side * 0.7, side * 0.93), mix(red, (1, 1, 1), 0.3), CAR
        )


def _front(shell: Shell) -> None:
    canvas, shines = shell.canvas, shell.canvas.light.night > 0 and shell.car.pace != 0
    _glass(shell, WINDSCREEN)
    dark = (0.07, 0.07, 0.08)
    canvas.fill(shell.panel(9, 0.35, 0.85, -0.62, 0.62), dark, CAR)
    canvas.fill(shell.panel(FRONT_PANEL, 0.2, 0.85, -0.45, 0.45), dark, CAR)
    canvas.fill(shell.panel(FRONT_PANEL, 0.48, 0.58, -0.42, 0.42), canvas.lit((0.7, 0.7, 0.72)), CAR)
    canvas.fill(shell.panel(9, 0.1, 0.4, -0.3, 0.3), canvas.lit((0.93, 0.93, 0.9)), CAR)
    canvas.fill(shell.panel(9, 0.17, 0.33, -0.24, 0.24), (0.1, 0.1, 0.1), None, 0.7)
    lamp = (1.0, 0.98, 0.9) if shines else canvas.lit((0.78, 0.82, 0.86))
    for side in (-1, 1):
        canvas.fill(shell.panel(FRONT_PANEL, 0.1, 0.95, side * 0.56, side * 0.97), scale(lamp, 0.6), CAR)
        canvas.fill(shell.panel(FRONT_PANEL, 0.25, 0.85, side * 0.62, side * 0.9), lamp, CAR)
        mirror = [(0.0, 0.92), (0.17, 0.95), (0.17, 1.07), (0.0, 1.05)]
        place = [shell.at(side * (shell.half(BELT) + x), y, 0.8) for x, y in mirror]
        canvas.fill(place, canvas.lit(scale(shell.car.paint, 0.7)), CAR)


def _flank(shell: Shell, side: int) -> None:
    """The side that faces the camera: paint, windows, doors and wheels."""
    car, canvas, profile = shell.car, shell.canvas, PROFILES[shell.car.body]
    face = canvas.lit(car.paint, side, 0.0)
    patch = partial(shell.beside, side)
    patch(list(profile), scale(face, 0.92))
    back, front = profile[2][0], profile[8][0]
    patch([(back, 0.76), (front, 0.72), (front, 0.80), (back, 0.90)], mix(face, canvas.light.haze, 0.5), 0.45)
    patch([(back, 0.30), (front, 0.30), (front, 0.44), (back, 0.46)], (0.05, 0.05, 0.06), 0.5)
    _side_windows(shell, side)
    for along in (-0.75, 0.12, 1.0):
        patch([(along, 0.42), (along + 0.03, 0.42), (along + 0.03, BELT), (along, BELT)], (0, 0, 0), 0.45)
    for along in (-0.6, 0.3):
        patch([(along, 0.84), (along + 0.2, 0.84), (along + 0.2, 0.87), (along, 0.87)], scale(face, 0.4))
    for along in (-1.32, 1.3):
        _wheel(shell, side, along)


def _side_windows(shell: Shell, side: int) -> None:
    patch = partial(shell.beside, side)
    profile, light = PROFILES[shell.car.body], shell.canvas.light
    base, roof = max(BELT, profile[3][1]) + 0.01, profile[5][1] - 0.10
    rear, front = profile[3][0], profile[7][0]
    slant, lean = profile[4][0] + 0.12, profile[6][0] - 0.06
    glass = [(rear + 0.3, base), (front - 0.18, base), (lean, roof), (slant, roof)]
    patch(glass, (0.08, 0.09, 0.11))
    sky = mix(light.haze, light.zenith, 0.4)
    shine = base + 0.45 * (roof - base)
    patch([(rear + 0.45, shine), (front - 0.42, shine), (lean, roof), (slant, roof)], sky, 0.24)
    pillar = 0.1
    patch(
        [(pillar, base), (pillar + 0.09, base), (pillar + 0.07, roof), (pillar, roof)],
        scale(shell.canvas.lit(shell.car.paint), 0.5),
    )


def _wheel(shell: Shell, side: int, along: float) -> None:
    """Arch, tyre and rim as discs in the plane of the side."""
    rings = (
        (0.40, 0.36, (0.03, 0.03, 0.03)),
        (0.33, 0.33, RUBBER),
        (0.23, 0.33, shell.canvas.lit((0.62, 0.63, 0.65), side, 0.0)),
        (0.19, 0.33, (0.22, 0.22, 0.24)),
        (0.08, 0.33, shell.canvas.lit((0.66, 0.67, 0.7), side, 0.0)),
    )
    for radius, middle, colour in rings:
        ring = [shell.at(side * 0.9, middle + radius * y, along + radius * x) for x, y in ROUND]
        shell.canvas.fill(ring, colour, CAR)
    for x, y in ROUND[::3] if shell.canvas.sharp(0.02, shell.z) else ():
        corners = [(-y * 0.03, x * 0.03), (0.2 * x, 0.2 * y), (y * 0.03, -x * 0.03)]
        place = [shell.at(side * 0.9, 0.33 + b, along + a) for a, b in corners]
        shell.canvas.fill(place, shell.canvas.lit((0.66, 0.67, 0.7), side, 0.0), CAR)
