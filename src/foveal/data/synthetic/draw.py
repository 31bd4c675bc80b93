"""Draw a street scene at random, the same one for the same seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from foveal.data.synthetic.scene import (
    CLOTHES,
    LEAVES,
    PAINTS,
    PERIOD,
    SKINS,
    WALLS,
    Body,
    Building,
    Car,
    Colour,
    Fence,
    Furniture,
    Light,
    Person,
    Post,
    Scene,
    Tree,
)

BODIES: tuple[Body, ...] = ("sedan", "hatch", "wagon", "van")
SIDES = (-1, 1)

# Colours of a time of day: sunlight, light from the sky, zenith, haze at the horizon, glow around the sun.
MOODS: dict[str, tuple[Colour, Colour, Colour, Colour, Colour]] = {
    "sunny": (
        (0.52, 0.48, 0.40), (0.66, 0.70, 0.77), (0.27, 0.50, 0.80), (0.80, 0.88, 0.94), (1.0, 0.97, 0.86),
    ),
    "golden": (
        (0.66, 0.48, 0.26), (0.62, 0.58, 0.62), (0.32, 0.47, 0.72), (0.98, 0.83, 0.64), (1.0, 0.78, 0.45),
    ),
    "overcast": (
        (0.08, 0.08, 0.08), (0.84, 0.86, 0.89), (0.60, 0.66, 0.73), (0.85, 0.87, 0.89), (0.95, 0.95, 0.95),
    ),
    "dusk": (
        (0.24, 0.15, 0.12), (0.50, 0.48, 0.60), (0.17, 0.23, 0.47), (0.95, 0.63, 0.47), (1.0, 0.60, 0.35),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """What the placement of things depends on; lengths in metres."""

    road: float
    pavement: float
    drive: int
    speed: float
    crossing: float

    @property
    def lane(self) -> float:
        """Middle of a driving lane."""
        return (self.road - 2.1) / 2

    @property
    def line(self) -> float:
        """The building line."""
        return self.road + self.pavement


def draw_scene(seed: int) -> Scene:
    """Draw everything in a street from one seed."""
    random = Random(f"street {seed}")
    layout = Layout(
        road=random.uniform(4.7, 5.8),
        pavement=random.uniform(3.0, 5.0),
        drive=random.choice((-1, -1, 1)),
        speed=random.choice((0.0, random.uniform(0.15, 0.3), random.uniform(0.3, 0.5))),
        crossing=random.uniform(9.0, 60.0),
    )
    light = draw_light(random)
    buildings = tuple(house for side in SIDES for house in draw_buildings(random, side))
    return Scene(
        seed=seed,
        road=layout.road,
        pavement=layout.pavement,
        drive=layout.drive,
        speed=layout.speed,
        focal=random.uniform(1.0, 1.3),
        horizon=random.uniform(0.52, 0.62),
        eye=random.uniform(1.7, 2.4),
        bend=random.choice((-1, 1)) * random.uniform(0.0, 0.0011),
        crossing=layout.crossing,
        light=light,
        buildings=buildings,
        cars=draw_cars(random, layout),
        trees=draw_trees(random, layout, buildings),
        posts=draw_posts(random, layout),
        fences=draw_fences(random, layout, buildings),
        pedestrians=draw_pedestrians(random, layout),
        bicyclists=draw_bicyclists(random, layout),
    )


def draw_light(random: Random) -> Light:
    """Draw the time of day: sunny, golden, overcast or dusk."""
    mood = random.choices(("sunny", "golden", "overcast", "dusk"), (5, 3, 2, 2))[0]
    angle = random.choice((-1, 1)) * random.uniform(0.45, 2.4)
    across, ahead = math.sin(angle), math.cos(angle)
    if mood == "golden":
        across, ahead = random.choice((-1, 1)) * random.uniform(0.12, 0.5), 0.9
    direct, ambient, zenith, haze, glow = MOODS[mood]
    return Light(
        sun_across=across,
        sun_ahead=ahead,
        sun_height={"sunny": random.uniform(0.6, 1.1), "golden": random.uniform(0.16, 0.3)}.get(mood, 0.12),
        sun={"sunny": 1.0, "golden": 0.8}.get(mood, 0.0),
        direct=direct,
        ambient=ambient,
        zenith=zenith,
        haze=haze,
        glow=glow,
        visibility=random.uniform(180, 420) if mood in ("golden", "dusk") else random.uniform(260, 700),
        clouds=random.uniform(0.85, 1.0) if mood == "overcast" else random.uniform(0.4, 0.78),
        night=1.0 if mood == "dusk" else 0.0,
    )


def draw_buildings(random: Random, side: int) -> list[Building]:
    """Line one side of the street with houses; some stand back behind a front garden."""
    houses, start = [], 0.0
    while start < PERIOD:
        bay, bays, setback = random.uniform(2.5, 3.5), random.randint(3, 6), 0.0
        if random.random() < 0.3:
            setback = random.uniform(4.0, 8.0)
        if PERIOD - start < bay * bays + 8.0:
            bays = max(1, round((PERIOD - start) / bay))
            bay = (PERIOD - start) / bays
        houses.append(_draw_house(random, side, start, (bay, bays), setback))
        start += bay * bays
    return houses


def _draw_house(random: Random, side: int, start: float, bays: tuple[float, int], setback: float) -> Building:
    wall = random.choice(WALLS)
    tone = random.uniform(0.85, 1.12)
    dark_trim = random.random() < 0.25
    return Building(
        side=side,
        start=start,
        bay=bays[0],
        bays=bays[1],
        floors=2 if setback else random.choice((2, 3, 3, 4, 4, 5, 6)),
        storey=random.uniform(2.8, 3.5),
        setback=setback,
        wall=(min(1.0, wall[0] * tone), min(1.0, wall[1] * tone), min(1.0, wall[2] * tone)),
        trim=(0.30, 0.27, 0.25) if dark_trim else (0.90, 0.87, 0.81),
        roof=random.choice(((0.45, 0.25, 0.19), (0.30, 0.30, 0.33), (0.38, 0.30, 0.27))),
        shape=random.choice(("gable", "gable", "flat")),
        brick=wall[0] < 0.72 and wall[2] < 0.5,
        shop=not setback and random.random() < 0.4,
        key=random.getrandbits(30),
    )


def draw_cars(random: Random, layout: Layout) -> tuple[Car, ...]:
    """Park cars along both kerbs and let a few drive."""
    cars = []
    for side in SIDES:
        z, crowd = random.uniform(6.5, 11.0), random.uniform(0.25, 0.8)
        while z < PERIOD - 6.0:
            if random.random() < crowd and abs(z - layout.crossing) > 7.0:
                away = layout.drive if random.random() < 0.85 else -layout.drive
                cars.append(_draw_car(random, side * (layout.road - 1.15), z, side * away, 0.0))
            z += random.uniform(5.6, 7.5)
    z = random.uniform(14.0, 26.0)
    while z < PERIOD - 20.0:
        cars.append(
            _draw_car(random, layout.drive * layout.lane, z, 1, layout.speed * random.uniform(0.95, 1.1))
        )
        z += random.uniform(18.0, 80.0)
    z = random.uniform(16.0, 50.0)
    while z < PERIOD - 20.0:
        cars.append(_draw_car(random, -layout.drive * layout.lane, z, -1, -random.uniform(0.25, 0.4)))
        z += random.uniform(25.0, 80.0)
    return tuple(cars)


def _draw_car(random: Random, x: float, z: float, heading: int, pace: float) -> Car:
    return Car(
        x=x + random.uniform(-0.12, 0.12),
        z=z,
        heading=heading,
        pace=pace,
        body=random.choices(BODIES, (4, 5, 3, 1))[0],
        paint=random.choice(PAINTS),
        key=random.getrandbits(30),
    )


def draw_trees(random: Random, layout: Layout, buildings: tuple[Building, ...]) -> tuple[Tree, ...]:
    """Plant street trees along the kerbs and trees in the front gardens."""
    places: list[tuple[float, float]] = []
    leaf = random.choice(LEAVES)
    for side in SIDES:
        z, gap = random.uniform(9.0, 22.0), random.choice((9.0, 14.0, 24.0))
        while z < PERIOD:
            places.append((side * (layout.road + 0.8), z))
            z += gap * random.uniform(0.8, 1.6)
    for house in buildings:
        for _ in range(random.randint(1, 2) if house.setback else 0):
            depth = layout.line + house.setback * random.uniform(0.3, 0.6)
            places.append((house.side * depth, house.start + house.length * random.uniform(0.1, 0.9)))
    return tuple(
        _draw_tree(random, x, z, random.choice((leaf, leaf, LEAVES[0], LEAVES[1]))) for x, z in places
    )


def _draw_tree(random: Random, x: float, z: float, leaf: Colour) -> Tree:
    height = random.uniform(4.8, 9.0)
    return Tree(
        x=x,
        z=z,
        height=height,
        spread=height * random.uniform(0.52, 0.72),
        leaf=leaf,
        shape=random.randrange(8),
    )


def draw_posts(random: Random, layout: Layout) -> tuple[Post, ...]:
    """Set lamp posts in a rhythm, traffic lights at the crossing, signs and bollards in between."""
    edge = layout.road + 0.45
    posts = []
    for side in SIDES:
        z = random.uniform(8.0, 22.0)
        while z < PERIOD:
            posts.append(Post(side * edge, z, "lamp", random.getrandbits(30)))
            z += random.uniform(22.0, 30.0)
        posts.append(Post(side * edge, layout.crossing + 2.2 * side, "traffic_light", random.getrandbits(30)))
        z = random.uniform(7.0, 18.0)
        while z < PERIOD:
            kind: Furniture = random.choice(("sign_disc", "sign_triangle", "sign_board"))
            posts.append(Post(side * (edge + 0.15), z, kind, random.getrandbits(30)))
            z += random.uniform(14.0, 40.0)
        first = random.uniform(4.0, 90.0)
        for step in range(random.randint(0, 7)):
            posts.append(Post(side * edge, first + 1.7 * step, "bollard", random.getrandbits(30)))
    return tuple(posts)


def draw_fences(random: Random, layout: Layout, buildings: tuple[Building, ...]) -> tuple[Fence, ...]:
    """Fence the front gardens and rail off the crossing and a stretch of kerb."""
    iron, wood, white = (0.13, 0.15, 0.15), (0.48, 0.34, 0.22), (0.86, 0.86, 0.84)
    fences = []
    for house in buildings:
        if house.setback:
            boards, colour = random.choice(((True, wood), (True, white), (False, iron), (False, white)))
            x = house.side * layout.line
            fences.append(Fence(x, house.start, house.length, random.uniform(1.0, 1.5), boards, colour))
    for side in SIDES:
        start = layout.crossing + random.choice((4.0, 6.0))
        length = random.uniform(6.0, 16.0)
        fences.append(Fence(side * (layout.road + 0.3), start, length, 1.05, False, (0.42, 0.44, 0.45)))
    return tuple(fences)


def draw_pedestrians(random: Random, layout: Layout) -> tuple[Person, ...]:
    """Send people along the pavements, alone or in pairs, and one over the crossing."""
    people = []
    for _ in range(random.randint(14, 30)):
        side = random.choice(SIDES)
        x = side * (layout.road + random.uniform(1.2, layout.pavement - 0.5))
        z, heading = 5.0 + (PERIOD - 12.0) * random.random() ** 1.7, random.choice((-1, 1))
        people.append(_draw_person(random, x, z, heading))
        if random.random() < 0.35:
            people.append(_draw_person(random, x - side * 0.65, z + 0.25, heading))
    x = random.uniform(-0.8, 0.8) * layout.road
    people.append(_draw_person(random, x, layout.crossing, 0))
    return tuple(people)


def draw_bicyclists(random: Random, layout: Layout) -> tuple[Person, ...]:
    """Let a few people cycle between the parked cars and the driving lane."""
    riders = []
    for count in range(random.randint(4, 8)):
        away = 1 if random.random() < 0.6 else -1
        x = away * layout.drive * (layout.road - 2.75)
        z = random.uniform(8.0, 22.0) if count == 0 else random.uniform(10.0, PERIOD - 20.0)
        rider = _draw_person(random, x, z, away)
        riders.append(rider)
    return tuple(riders)


def _draw_person(random: Random, x: float, z: float, heading: int) -> Person:
    return Person(
        x=x,
        z=z,
        heading=heading,
        pace=random.uniform(0.04, 0.06),
        height=random.uniform(1.52, 1.9),
        phase=random.uniform(0.0, math.tau),
        top=random.choice(CLOTHES),
        legs=random.choice(((0.14, 0.17, 0.26), (0.16, 0.16, 0.17), (0.30, 0.27, 0.22), (0.34, 0.40, 0.50))),
        skin=random.choice(SKINS),
        hair=random.choice(((0.10, 0.08, 0.07), (0.28, 0.18, 0.11), (0.58, 0.44, 0.26), (0.40, 0.39, 0.38))),
        bag=random.random() < 0.4,
    )
