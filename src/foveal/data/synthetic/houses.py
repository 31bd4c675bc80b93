"""Houses: facades bay by bay, with windows, doors, shops and roofs."""

from __future__ import annotations

from dataclasses import dataclass

from foveal.data.synthetic.canvas import Canvas, chance, mix, scale
from foveal.data.synthetic.scene import Building, Colour

BUILDING = 1
AWNINGS: tuple[Colour, ...] = (
    (0.60, 0.14, 0.14), (0.14, 0.34, 0.26), (0.16, 0.24, 0.46), (0.82, 0.62, 0.24), (0.30, 0.28, 0.28),
)  # fmt: skip
DOORS: tuple[Colour, ...] = ((0.42, 0.10, 0.10), (0.10, 0.22, 0.34), (0.14, 0.28, 0.20), (0.22, 0.16, 0.12))
DETAIL = 70.0  # [m] beyond this only walls and windows are drawn
TRIM = 0.05  # [m] details are of about this size and left out where they cannot be seen


@dataclass(frozen=True)
class Wall:
    """One bay of a facade as a place to draw on: a plane along the street.

    Attributes:
        canvas: Where to draw.
        house: The building.
        x: The plane [m].
        z: Its near end [m].
        index: Which bay it is.
    """

    canvas: Canvas
    house: Building
    x: float
    z: float
    index: int

    def patch(
        self,
        low: tuple[float, float],
        high: tuple[float, float],
        colour: Colour,
        alpha: float = 1.0,
        out: float = 0,
    ) -> None:
        """Fill a rectangle from (along, up) to (along, up) [m], ``out`` metres in front of the wall."""
        x = self.x - self.house.side * out
        (near, bottom), (far, top) = (self.z + low[0], low[1]), (self.z + high[0], high[1])
        corners = [(x, bottom, near), (x, bottom, far), (x, top, far), (x, top, near)]
        self.canvas.fill(corners, colour, BUILDING if alpha >= 1 else None, alpha)

    def lit(self, colour: Colour) -> Colour:
        """The colour of something on this wall in the scene's light."""
        return self.canvas.lit(colour, -self.house.side, 0.0)

    @property
    def close(self) -> bool:
        """Whether details on the wall can be seen."""
        return self.z < DETAIL and self.canvas.sharp(TRIM, self.z)

    def luck(self, *keys: int) -> float:
        """A fixed random number for this bay."""
        return chance(self.house.key, self.index, *keys)


def draw_end(canvas: Canvas, house: Building, line: float, z: float) -> None:
    """Draw the gable wall that faces the camera, with the near end of the roof."""
    inner, outer, top = line + house.setback, line + house.setback + 9.0, house.height
    corners = [(inner, 0.0), (outer, 0.0), (outer, top), (inner, top)]
    if house.shape == "gable":
        corners.insert(3, ((inner + outer) / 2, top + 2.6))
    wall = canvas.lit(scale(house.wall, 0.94), 0.0, -1.0)
    canvas.fill([(house.side * x, y, z) for x, y in corners], wall, BUILDING)
    if z < DETAIL and canvas.sharp(TRIM, z):
        _end_details(canvas, house, (inner, z), wall)


def _end_details(canvas: Canvas, house: Building, place: tuple[float, float], wall: Colour) -> None:
    """Stains, a few windows and a chimney breast on an end wall; place is its edge and distance [m]."""
    inner, z = place

    def patch(left: float, low: float, right: float, high: float, colour: Colour, alpha: float = 1.0) -> None:
        corners = [(left, low), (right, low), (right, high), (left, high)]
        canvas.fill([(house.side * (inner + x), y, z) for x, y in corners], colour, None, alpha)

    for count in range(14):
        left, low = 7.5 * chance(house.key, count, 21), house.height * chance(house.key, count, 22)
        tone = scale(wall, 0.75 if chance(house.key, count, 23) < 0.6 else 1.2)
        wide, high = 0.4 + chance(house.key, count, 24), 0.4 + 2 * chance(house.key, count, 25)
        patch(left, low, left + wide, min(house.height, low + high), tone, 0.10)
    for course in range(int(house.height / 0.24) if house.brick and z < 30 else 0):
        patch(0.0, course * 0.24, 9.0, course * 0.24 + 0.035, scale(wall, 1.3), 0.2)
    trim, sky = canvas.lit(house.trim), mix(canvas.light.haze, canvas.light.zenith, 0.5)
    for floor in range(house.floors if house.key % 4 else 0):
        low = (floor + 0.34) * house.storey
        patch(1.9, low - 0.1, 3.1, low + 1.4, trim)
        patch(2.0, low, 3.0, low + 1.3, mix((0.10, 0.12, 0.15), sky, 0.4 * chance(house.key, floor, 26)))
        patch(2.0, low + 0.7, 3.0, low + 1.3, sky, 0.25)
        patch(2.47, low, 2.53, low + 1.3, trim)
    patch(0.0, 0.0, 0.3, house.height, scale(wall, 1.15), 0.5)
    for high in (0.4, 1.2, 2.6):
        patch(0.0, 0.0, 9.0, high, (0.05, 0.05, 0.08), 0.10)


def draw_bay(canvas: Canvas, house: Building, line: float, z: float, index: int) -> None:
    """Draw one bay of a facade with its piece of roof; z is its near end [m]."""
    wall = Wall(canvas, house, house.side * (line + house.setback), z, index)
    _roof(wall)
    base = wall.lit(house.wall)
    wall.patch((0.0, 0.0), (house.bay, house.height), base)
    if wall.close:
        _texture(wall, base)
    for floor in range(house.floors):
        if floor == 0 and house.shop:
            _shop(wall)
        elif floor == 0 and index == house.key % house.bays:
            _door(wall)
        else:
            _window(wall, floor)
    _bands(wall)
    for height in (0.35, 1.0, 2.2) if wall.close else ():
        wall.patch((0.0, 0.0), (house.bay, height), (0.05, 0.05, 0.08), 0.10)


def _roof(wall: Wall) -> None:
    house, top = wall.house, wall.house.height
    far = wall.z + house.bay
    if house.shape == "flat":
        return
    ridge = wall.x + house.side * 4.5
    slope = [(wall.x, top, wall.z), (wall.x, top, far), (ridge, top + 2.6, far), (ridge, top + 2.6, wall.z)]
    wall.canvas.fill(slope, wall.canvas.lit(house.roof, -house.side * 0.7, -0.1), BUILDING)
    if not wall.close:
        return
    for course in range(1, 9):
        part = course / 9
        x, y = wall.x + house.side * 4.5 * part, top + 2.6 * part
        tile = [(x, y, wall.z), (x, y, far), (x, y + 0.05, far), (x, y + 0.05, wall.z)]
        wall.canvas.fill(tile, scale(house.roof, 0.4), None, 0.35)


def _texture(wall: Wall, base: Colour) -> None:
    """Brick courses near by, stains and tonal patches everywhere."""
    house = wall.house
    for count in range(7):
        along, up = wall.luck(count, 1) * house.bay, wall.luck(count, 2) * house.height
        wide, high = 0.3 + wall.luck(count, 3) * 1.2, 0.3 + wall.luck(count, 4) * 2.0
        tone = scale(base, 0.8 if wall.luck(count, 5) < 0.6 else 1.15)
        end = (min(house.bay, along + wide), min(house.height, up + high))
        wall.patch((along, up), end, tone, 0.12)
    if house.brick and wall.z < 26:
        for course in range(int(house.height / 0.24)):
            up = course * 0.24
            wall.patch((0.0, up), (house.bay, up + 0.035), scale(base, 1.35), 0.22)


def _bands(wall: Wall) -> None:
    """Cornice, string courses and the joint to the next bay."""
    house, trim = wall.house, wall.lit(wall.house.trim)
    top = house.height
    wall.patch((0.0, top - 0.55), (house.bay, top - 0.3), scale(wall.lit(house.wall), 0.7))
    wall.patch((0.0, top - 0.3), (house.bay, top), trim, out=0.12)
    if not wall.close:
        return
    if house.key % 3:
        for floor in range(1, house.floors):
            wall.patch((0.0, floor * house.storey), (house.bay, floor * house.storey + 0.14), trim, out=0.04)
            wall.patch((0.0, floor * house.storey - 0.08), (house.bay, floor * house.storey), (0, 0, 0), 0.2)
    if wall.index == 0:
        wall.patch((0.1, 0.0), (0.22, top), scale(trim, 0.45), out=0.06)


def _glass(wall: Wall, low: tuple[float, float], high: tuple[float, float], key: int) -> None:
    """A pane set back in its opening, with sky in it, or a lit room behind it."""
    light, depth = wall.canvas.light, 0.16
    reveal = wall.lit(scale(wall.house.wall, 0.62))
    wall.patch(low, high, reveal)
    far = high[0] - min(0.4 * (high[0] - low[0]), depth * wall.z / (abs(wall.x) + 1e-3))
    room = wall.luck(key, 7)
    if room < 0.55 * light.night:
        pane = mix((1.0, 0.80, 0.46), (1.0, 0.92, 0.72), wall.luck(key, 8))
        wall.patch(low, (far, high[1]), pane)
        wall.patch(low, (far, low[1] + 0.35 * (high[1] - low[1])), (0.45, 0.26, 0.10), 0.30)
        return
    sky = mix(light.haze, light.zenith, 0.35 + 0.4 * wall.luck(key, 9))
    pane = mix((0.10, 0.12, 0.15), scale(sky, 0.9 - 0.35 * light.night), 0.22 + 0.30 * room)
    wall.patch(low, (far, high[1]), pane)
    if wall.close:
        split = low[1] + (0.35 + 0.4 * wall.luck(key, 10)) * (high[1] - low[1])
        wall.patch((low[0], split), (far, high[1]), sky, 0.28)
        wall.patch((low[0], high[1] - 0.14), (far, high[1]), (0.02, 0.02, 0.03), 0.45)
        if wall.luck(key, 11) < 0.45:
            drape = low[0] + 0.25 * (far - low[0])
            wall.patch(low, (drape, high[1]), wall.lit((0.86, 0.83, 0.76)), 0.55)


def _window(wall: Wall, floor: int) -> None:
    house = wall.house
    wide = house.bay * (0.36 + 0.16 * chance(house.key, 1))
    high = house.storey * (0.5 + 0.1 * chance(house.key, 2))
    left, bottom = (house.bay - wide) / 2, floor * house.storey + 0.28 * house.storey + 0.1
    right, top = left + wide, bottom + high
    trim = wall.lit(house.trim)
    if wall.z < DETAIL * 2:
        wall.patch((left - 0.1, bottom - 0.02), (right + 0.1, top + 0.16), trim, out=0.02)
    _glass(wall, (left, bottom), (right, top), floor)
    if not wall.close:
        return
    middle = (left + right) / 2
    frame = scale(trim, 0.95)
    wall.patch((middle - 0.035, bottom), (middle + 0.035, top), frame)
    wall.patch((left, bottom + high * 0.62), (right, bottom + high * 0.62 + 0.06), frame)
    wall.patch((left - 0.16, bottom - 0.14), (right + 0.16, bottom), scale(trim, 1.05), out=0.1)
    wall.patch((left - 0.1, bottom - 0.34), (right + 0.1, bottom - 0.14), (0.03, 0.03, 0.05), 0.16)


def _door(wall: Wall) -> None:
    house, middle = wall.house, wall.house.bay / 2
    trim = wall.lit(house.trim)
    wall.patch((middle - 0.72, 0.0), (middle + 0.72, 2.65), trim, out=0.03)
    wall.patch((middle - 0.52, 0.1), (middle + 0.52, 2.1), wall.lit(DOORS[house.key % len(DOORS)]))
    _glass(wall, (middle - 0.52, 2.16), (middle + 0.52, 2.52), 90)
    if wall.close:
        for low in (0.3, 1.2):
            wall.patch((middle - 0.4, low), (middle - 0.06, low + 0.7), (0, 0, 0), 0.22)
            wall.patch((middle + 0.06, low), (middle + 0.4, low + 0.7), (0, 0, 0), 0.22)
        wall.patch((middle - 0.8, 0.0), (middle + 0.8, 0.12), wall.lit((0.6, 0.6, 0.58)), out=0.25)


def _shop(wall: Wall) -> None:
    house, top = wall.house, wall.house.storey
    cloth = AWNINGS[house.key % len(AWNINGS)]
    wall.patch((0.0, 0.0), (house.bay, top - 0.1), wall.lit(scale(cloth, 0.55)))
    _glass(wall, (0.2, 0.5), (house.bay - 0.2, top - 0.8), 91)
    if wall.canvas.light.night or wall.luck(5) < 0.4:
        wall.patch(
            (0.25, 0.55),
            (house.bay - 0.4, top - 1.2),
            (1.0, 0.84, 0.56),
            0.25 + 0.5 * wall.canvas.light.night,
        )
    wall.patch((0.0, top - 0.75), (house.bay, top - 0.1), wall.lit(cloth), out=0.05)
    if house.key % 5 < 3 and wall.z < DETAIL:
        _awning(wall, cloth, top - 0.78)
    for letter in range(5 if wall.close else 0):
        left = house.bay * (0.18 + 0.13 * letter)
        high = 0.2 + 0.12 * wall.luck(letter, 6)
        wall.patch(
            (left, top - 0.58), (left + 0.22, top - 0.58 + high), wall.lit((0.95, 0.92, 0.82)), out=0.06
        )


def _awning(wall: Wall, cloth: Colour, top: float) -> None:
    """A striped awning over a shop window."""
    out, drop, stripes = wall.x - wall.house.side * 1.1, top - 0.65, 6
    for stripe in range(stripes):
        near = wall.z + wall.house.bay * stripe / stripes
        far = wall.z + wall.house.bay * (stripe + 1) / stripes
        tone = wall.canvas.lit(cloth if stripe % 2 else (0.90, 0.88, 0.82), -wall.house.side * 0.6, -0.3)
        wall.canvas.fill(
            [(wall.x, top, near), (wall.x, top, far), (out, drop, far), (out, drop, near)], tone, BUILDING
        )
        skirt = [(out, drop, near), (out, drop, far), (out, drop - 0.2, far), (out, drop - 0.2, near)]
        wall.canvas.fill(skirt, scale(tone, 0.8), BUILDING)
