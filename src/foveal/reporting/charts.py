"""The chart of `foveal bench`: speed-up over work, and the line that all of the saved work would give."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from foveal.reporting.pictures import Colour

Point = tuple[float, float]
Box = tuple[float, float, float, float]

WIDTH, HEIGHT = 1200, 800
LEFT, TOP, RIGHT, BOTTOM = 116, 104, 1168, 716
"""Frame of the axes [px]."""
FINER = 3
"""Everything is drawn this much larger and then reduced, for smooth lines."""
PAPER, INK, FAINT, GRID = (255, 255, 255), (34, 34, 40), (112, 112, 122), (230, 230, 235)
SERIES: tuple[Colour, ...] = ((38, 108, 196), (214, 94, 36), (40, 140, 96), (128, 72, 160), (176, 40, 90))
TICKS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 16, 20)
NEAREST = 44
"""Least distance of two ticks [px]."""
DOT, AWAY = 7, 12
"""Radius of a point, and distance of its label [px]."""
SIDES = tuple(
    (across * far, up * far)
    for far in (1.0, 1.4, 1.8, 2.4)
    for across, up in (
        *((-1, 0.7), (1, -0.7), (-0.7, 1.1), (0.7, -1.1), (-1, 1.6), (1, -1.6)),
        *((0, 1.2), (0, -1.2), (1, 0), (-1, 0), (1, 1), (-1, -1)),
    )
)
"""Where the middle of a label may be, in its own halves; the first that hides least is taken."""


def draw_bench(result: Mapping[str, Any]) -> Image.Image:
    """Draw what `foveal.benchmark.bench` returns: a line of points per coarsest level, both axes logarithmic.

    A point on the line "1 / work" has eta 1; what is missing below it is work that was saved but not time.
    """
    rows, best = result["adaptive"], result["best_static"]
    works, speeds = ([row[key] for row in rows] for key in ("work", "speedup"))
    left, right = min(0.5, *works) / 1.2, max(1.0, *works) * 1.12
    chart = _Chart((left, right), (min(0.85, *speeds) / 1.25, max(1 / left, *speeds)))
    chart.axes("work, as a share of the dense network's", "speed-up over the fastest dense peer")
    chart.line([(left, 1 / left), (right, 1 / right)], INK)
    chart.line([(left, 1.0), (right, 1.0)], FAINT, dash=10)
    for (name, members), colour in zip(_series(rows).items(), SERIES * len(rows), strict=False):
        chart.series(name, members, colour)
    chart.key([("1 / work: all that is saved", INK), (f"{best['runtime']}: {best['ms']:.0f} ms", FAINT)])
    return chart.finish(*_titles(result))


def _titles(result: Mapping[str, Any]) -> tuple[str, str]:
    (height, width), row = result["size"], result["adaptive"][0]
    batch = f"{result['batch']} x " if result["batch"] > 1 else ""
    what = f"{row['method']}, {row['policy']}, tile {row['tile']} px"
    threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    where = f"{result['machine']}, {threads}; median of {result['repeat']} in turns, from image to labels"
    return f"{result['model']}, {batch}{width} x {height} px: {what}", where


def _series(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Group rows by coarsest level, least work first; a row without coarse levels is in every group."""
    levels = sorted({row["coarsest"] for row in rows} - {0}) or [0]
    return {
        f"coarsest level {level}": sorted(
            (row for row in rows if row["coarsest"] in (0, level)), key=lambda row: row["work"]
        )
        for level in levels
    }


class _Chart:
    """Two logarithmic axes, and what is drawn between them; lengths are in pixels of the finished picture.

    Args:
        across: Least and largest value of the horizontal axis.
        up: Those of the vertical axis.
    """

    def __init__(self, across: Point, up: Point) -> None:
        self.across, self.up = across, up
        self.picture = Image.new("RGB", (WIDTH * FINER, HEIGHT * FINER), PAPER)
        self.pen = ImageDraw.Draw(self.picture)
        self.occupied: list[tuple[Box, int]] = []
        self.names: list[tuple[str, Colour]] = []
        self.labels: dict[Point, tuple[str, Colour]] = {}

    def axes(self, across: str, up: str) -> None:
        """Draw the frame, a grid with its values, and what the axes mean."""
        spots = ((tick, self.place((tick, self.up[0]))[0]) for tick in TICKS)
        for tick, x in _apart([(t, x) for t, x in spots if LEFT <= x <= RIGHT]):
            self.stroke([(x, TOP), (x, BOTTOM)], GRID, 1)
            self.write((x, BOTTOM + 10), f"{tick:g}", FAINT, anchor="ma")
        spots = ((tick, self.place((self.across[0], tick))[1]) for tick in TICKS)
        for tick, y in _apart([(t, y) for t, y in spots if TOP <= y <= BOTTOM]):
            self.stroke([(LEFT, y), (RIGHT, y)], GRID, 1)
            self.write((LEFT - 12, y), f"{tick:g}x", FAINT, anchor="rm")
        self.write(((LEFT + RIGHT) / 2, BOTTOM + 42), across, INK, anchor="ma")
        self.write_upwards(34, (TOP + BOTTOM) / 2, up)

    def line(self, values: Sequence[Point], colour: Colour, width: float = 2, dash: int = 0) -> None:
        """Draw a line through values, cut at the frame and dashed if asked to; labels keep off it."""
        points = [self.place(value) for value in values]
        for start, end in pairwise(points):
            steps = max(1, round(math.dist(start, end) / (dash or 10)))
            spots = [_between(start, end, k / steps) for k in range(steps + 1)]
            for k, (first, second) in enumerate(pairwise(spots)):
                if _within(first) and _within(second):
                    self.occupied.append(((*first, *first), 1))
                    if not dash or k % 2 == 0:
                        self.stroke([first, second], colour, width)

    def series(self, name: str, rows: Sequence[Mapping[str, Any]], colour: Colour) -> None:
        """Draw rows as points on a line; their labels come last, where there is room."""
        values = [(row["work"], row["speedup"]) for row in rows]
        self.line(values, colour, 3)
        self.names.append((name, colour))
        for value, row in zip(values, rows, strict=True):
            x, y = self.place(value)
            shared = (x, y) in self.labels
            self.dot((x, y), INK if shared else colour)
            self.occupied.append(((x - DOT, y - DOT, x + DOT, y + DOT), 10))
            text = f"budget {row['budget']:g}\n{row['speedup']:.2f}x, eta {row['eta']:.2f}"
            self.labels[x, y] = text, INK if shared else colour

    def key(self, lines: Sequence[tuple[str, Colour]]) -> None:
        """Say in the upper right corner, where nothing can be, what the colours mean."""
        left, y = RIGHT - 330, TOP + 26.0
        box = (left - 20, TOP + 2, RIGHT, TOP + 22 + 30 * (len(self.names) + len(lines)))
        self.occupied.append((box, 100))
        self.pen.rectangle([edge * FINER for edge in box], PAPER)
        for text, colour in [*self.names, *lines]:
            self.stroke([(left, y), (left + 40, y)], colour, 3)
            if (text, colour) in self.names:
                self.dot((left + 20, y), colour)
            self.write((left + 54, y), text, INK, anchor="lm")
            y += 30

    def finish(self, title: str, below: str) -> Image.Image:
        """Write the labels and the titles, and reduce the picture."""
        for (x, y), (text, colour) in self.labels.items():
            self.label(x, y, text, colour)
        self.write((LEFT, 34), title, INK, 26)
        self.write((LEFT, 70), below, FAINT, 17)
        return self.picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)

    def label(self, x: float, y: float, text: str, colour: Colour) -> None:
        """Write beside a point, where it hides least."""
        box = self.pen.multiline_textbbox((0, 0), text, _font(17))
        width, height = box[2] / FINER, box[3] / FINER
        spots = [
            (x + across * (AWAY + width / 2) - width / 2, y + up * (AWAY + height / 2) - height / 2)
            for across, up in SIDES
        ]
        left, top = min(spots, key=lambda spot: self._hidden((*spot, spot[0] + width, spot[1] + height)))
        self.occupied.append(((left, top, left + width, top + height), 100))
        self.write((left, top), text, colour, 17)

    def _hidden(self, box: Box) -> int:
        """Weigh what a box would hide; to lie outside of the frame is worst."""
        outside = not (_within(box[:2]) and _within(box[2:]))
        return 1000 * outside + sum(
            weight
            for other, weight in self.occupied
            if box[0] - 3 <= other[2] and other[0] <= box[2] + 3
            if box[1] - 3 <= other[3] and other[1] <= box[3] + 3
        )

    def place(self, value: Point) -> Point:
        """Find the place of a value [px]."""
        across, up = (
            math.log(v / axis[0]) / math.log(axis[1] / axis[0])
            for v, axis in zip(value, (self.across, self.up), strict=True)
        )
        return LEFT + across * (RIGHT - LEFT), BOTTOM - up * (BOTTOM - TOP)

    def stroke(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Draw a plain line [px]."""
        self.pen.line([(x * FINER, y * FINER) for x, y in points], colour, round(width * FINER))

    def dot(self, point: Point, colour: Colour) -> None:
        """Draw a point with a white rim [px]."""
        for radius, fill in ((DOT + 2, PAPER), (DOT, colour)):
            self.pen.circle((point[0] * FINER, point[1] * FINER), radius * FINER, fill)

    def write(self, spot: Point, text: str, colour: Colour, size: int = 18, anchor: str = "la") -> None:
        """Write text, of a height [px], with a white rim."""
        anchor = anchor if "\n" not in text else None  # type: ignore[assignment]
        place = (spot[0] * FINER, spot[1] * FINER)
        rim = {"stroke_width": 2 * FINER, "stroke_fill": PAPER}
        self.pen.text(place, text, colour, _font(size), anchor, **rim)  # type: ignore[arg-type]

    def write_upwards(self, x: float, y: float, text: str) -> None:
        """Write text that is read from below, its middle at a place [px]."""
        font = _font(18)
        box = font.getbbox(text)
        layer = Image.new("RGB", (math.ceil(box[2]) + FINER, math.ceil(box[3]) + FINER), PAPER)
        ImageDraw.Draw(layer).text((0, 0), text, INK, font)
        turned = layer.transpose(Image.Transpose.ROTATE_90)
        self.picture.paste(
            turned, (round(x * FINER - turned.width / 2), round(y * FINER - turned.height / 2))
        )


def _font(size: int) -> Any:
    return ImageFont.load_default(size * FINER)


def _apart(spots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep the ticks that are far enough from the last one kept, and 1 in any case."""
    middle = [at for tick, at in spots if tick == 1]
    kept: list[tuple[float, float]] = []
    for tick, at in spots:
        others = [*middle, *(place for _, place in kept)]
        if tick == 1 or all(abs(at - other) >= NEAREST for other in others):
            kept.append((tick, at))
    return kept


def _between(start: Point, end: Point, share: float) -> Point:
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def _within(point: Sequence[float]) -> bool:
    return LEFT - 1 <= point[0] <= RIGHT + 1 and TOP - 1 <= point[1] <= BOTTOM + 1
