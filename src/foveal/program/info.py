"""What a program file says besides its tables: names, colours, and the settings that suit its network."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from foveal.program.settings import CoarseToFineRun, DenseRun, SegBlocksRun, shrunk_size
from foveal.program.spec import MOST_LEVELS, MOST_TILE, SCORES
from foveal.storage.reading import parse_json

MOST_GAIN = 1 << 20
LEAST_SCALE = 0.01
LATER = (frozenset({"scale"}), frozenset({"isolated_gain", "direct"}))
"""Settings that older files lack, the last ones first; their defaults are what was done then."""


@dataclass(frozen=True)
class RunDefaults:
    """Settings that suit a network, so that a budget is all that a user gives.

    Attributes:
        tile: Side of a tile [px], a multiple of the network's coarsest stride.
        coarse_level: Level of the coarse pass.
        max_level: Coarsest level that may occur in SegBlocks.
        segblocks_score: Name of what SegBlocks goes by, one of `SCORES`.
        coarse_to_fine_score: Name of what coarse to fine goes by, one of `SCORES`.
        level_gain: What a step to level 0, 1, ... gains, as a share of the score.
        logit_blend: Share of the coarser answer that stays in the answer of a finer pass.
        isolated_gain: Share of its gain that a tile has if no neighbour is refined; 1 ignores neighbours.
        direct: Whether coarse to fine goes from the coarse level to full resolution at once.
        scale: Share of the image's sides that the network sees best: images are shrunk to it first.

    Raises:
        ValueError: A value is none that a run can have; the message says which.
    """

    tile: int = 32
    coarse_level: int = 1
    max_level: int = 2
    segblocks_score: str = "entropy"
    coarse_to_fine_score: str = "weighted_entropy"
    level_gain: tuple[float, ...] = (0.5, 1.0)
    logit_blend: float = 0.0
    isolated_gain: float = 1.0
    direct: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        whole = {
            "tile": (1, MOST_TILE),
            "coarse_level": (0, MOST_LEVELS - 1),
            "max_level": (0, MOST_LEVELS - 1),
        }
        for name, (least, most) in whole.items():
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} is {value!r}; give a whole number of {least} to {most}")
        for name in ("segblocks_score", "coarse_to_fine_score"):
            if getattr(self, name) not in SCORES:
                raise ValueError(f"{name} is {getattr(self, name)!r}; a program has {', '.join(SCORES)}")
        numbers = all(_is_number(gain) and 0 <= gain <= MOST_GAIN for gain in self.level_gain)
        if not 1 <= len(self.level_gain) <= MOST_LEVELS or not numbers:
            raise ValueError(f"level_gain is {self.level_gain}; give 1 to {MOST_LEVELS} numbers of 0 or more")
        for name in ("logit_blend", "isolated_gain"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value <= 1:
                raise ValueError(f"{name} is {value!r}; give a share between 0 and 1")
        if type(self.direct) is not bool:
            raise ValueError(f"direct is {self.direct!r}; give true or false")
        if not _is_number(self.scale) or not LEAST_SCALE <= self.scale <= 1:
            raise ValueError(f"scale is {self.scale!r}; give a share of {LEAST_SCALE} to 1")

    def sides(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width that images of `size` [px] are shrunk to."""
        return shrunk_size(size, self.scale)

    def dense(self) -> DenseRun:
        """Return settings of a dense run."""
        return DenseRun(self.tile)

    def segblocks(self, budget: float) -> SegBlocksRun:
        """Return settings of SegBlocks at a budget, a share of the dense work."""
        return SegBlocksRun(budget, self.segblocks_score, self.tile, self.max_level, self.coarse_level)

    def coarse_to_fine(self, budget: float) -> CoarseToFineRun:
        """Return settings of coarse to fine at a budget, a share of the dense work."""
        return CoarseToFineRun(
            budget,
            self.coarse_to_fine_score,
            self.tile,
            self.coarse_level,
            self.level_gain,
            self.logit_blend,
            isolated_gain=self.isolated_gain,
            direct=self.direct,
        )


@dataclass(frozen=True)
class ProgramInfo:
    """Who a program is: written into its file, read in Python and in C.

    Attributes:
        name: Name of the model.
        classes: Names of the classes, by label.
        palette: Colour of every class, 0..255; empty if there are none.
        run: Settings that suit it.

    Raises:
        ValueError: A name is no text, or there is no colour of three bytes for every class.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] = ()
    run: RunDefaults = field(default_factory=RunDefaults)

    def __post_init__(self) -> None:
        texts = [self.name, *self.classes]
        if not all(map(_is_text, texts)):
            raise ValueError(f"names are {texts}; give texts without the character 0 and lone surrogates")
        colours = [
            c for c in self.palette if len(c) == 3 and all(type(v) is int and v in range(256) for v in c)
        ]
        if len(colours) != len(self.palette) or (colours and len(colours) != len(self.classes)):
            raise ValueError(
                f"palette has {len(colours)} colours of three bytes for {len(self.classes)} classes; give "
                "one for each, or none at all"
            )

    def check(self, classes: int, coarsest_stride: int) -> None:
        """Refuse to describe another network.

        Raises:
            ValueError: It has another number of classes, or the tile is no multiple of the coarsest stride.
        """
        if len(self.classes) != classes:
            raise ValueError(f"info names {len(self.classes)} classes; the network has {classes}")
        if self.run.tile % coarsest_stride:
            raise ValueError(f"info recommends tile {self.run.tile}; give a multiple of {coarsest_stride}")

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ProgramInfo:
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is something else; members that are not known are refused too.
        """
        state = _members(parse_json(text, "its info", "JSON"), cls)
        state["run"] = RunDefaults(**_members(state["run"], RunDefaults, *LATER))
        return cls(**state)


def _members(state: Any, kind: type, *later: frozenset[str]) -> dict[str, Any]:
    """Return the members of an object, lists as tuples.

    They must be the fields of a class; older files lack those that came `later`, the last ones first.
    """
    names = {f.name for f in fields(kind)}
    known = [names.difference(*later[:k]) for k in range(len(later) + 1)]
    if not isinstance(state, dict) or set(state) not in known:
        raise ValueError(f"{kind.__name__} must have {', '.join(sorted(names))}, and nothing else")
    return {name: _tuples(value) for name, value in state.items()}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _is_text(value: Any) -> bool:
    """Whether a value is a text that C can hold: no character 0, and nothing that UTF-8 lacks."""
    return isinstance(value, str) and not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
