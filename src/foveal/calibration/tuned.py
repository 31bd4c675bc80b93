"""What `foveal tune` found on labelled images, stored as `MODEL.tuned.json` beside the weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

from foveal.calibration.engine import Precision
from foveal.hub.beside import Beside
from foveal.hub.checkpoint import Model
from foveal.methods import METHODS, MethodConfig
from foveal.methods.config import SettingValue
from foveal.storage.names import find
from foveal.storage.schema import Count, Name, Number, Share, Side, read_as


@dataclass(frozen=True)
class TunedRow:
    """A setting that none is better than at its work or its time.

    Attributes:
        method: Name in `foveal.methods.METHODS`.
        settings: Of the method by name, budget and scale among them.
        precision: What its program computed in.
        work: Mean share of the dense work that it took.
        ms: Median time of an image [ms]; None if nothing was timed.
        miou: Mean IoU over the classes that occur.
    """

    method: Name
    settings: dict[Name, SettingValue]
    precision: Precision
    work: Share
    ms: Number | None
    miou: Share

    @property
    def config(self) -> MethodConfig:
        """The settings as the method takes them.

        Raises:
            ValueError: There is no such method, it has no such setting, or a value is not allowed.
        """
        kind = find(self.method, METHODS, "method").Config
        return read_as(kind, {**kind.unsaid, **self.settings}, "tuned", "settings")

    def fits(self, method: str | None, precision: str | None, given: Mapping[str, object]) -> bool:
        """Whether it has all that a user asks for; None leaves it open."""
        return (
            method in (None, self.method)
            and precision in (None, self.precision)
            and all(name in self.settings and self.settings[name] == value for name, value in given.items())
        )


@dataclass(frozen=True)
class TunedSettings:
    """The best settings of a network for any budget and any time, from labelled images.

    Attributes:
        weights: Fingerprint of the network's weights.
        data: Name of the data set and split.
        images: Number of images that the last choice was made on.
        size: Height and width of most of them [px].
        dense_miou: Mean IoU of the dense network at full size.
        rows: Settings, cheapest first.
    """

    weights: str
    data: Name
    images: Count
    size: tuple[Side, Side]
    dense_miou: Share
    rows: tuple[TunedRow, ...]

    def for_budget(
        self,
        budget: float,
        method: str | None = None,
        precision: str | None = None,
        given: Mapping[str, object] | None = None,
    ) -> TunedRow | None:
        """Return the best setting that takes no more work, give or take a tile; None if there is none.

        Args:
            budget: Share of the dense work.
            method: What it must be; any if absent.
            precision: What it must compute in; any if absent.
            given: Settings that it must have.
        """
        able = [r for r in self.rows if self._paid(r, budget) and r.fits(method, precision, given or {})]
        return max(able, key=lambda row: (row.miou, -row.work), default=None)

    def _paid(self, row: TunedRow, budget: float) -> bool:
        """Whether a budget pays for a row; budgets are kept to one tile above them, works rounded."""
        return row.work <= budget + row.config.whole("tile") ** 2 / prod(self.size) + 1e-4

    def for_latency(
        self,
        ms: float,
        method: str | None = None,
        precision: str | None = None,
        given: Mapping[str, object] | None = None,
    ) -> TunedRow | None:
        """Return the best setting that took no more time; None if there is none, or nothing was timed."""
        able = [r for r in self.rows if r.ms is not None and r.fits(method, precision, given or {})]
        able = [row for row in able if row.ms is not None and row.ms <= ms]
        return max(able, key=lambda row: (row.miou, -(row.ms or 0.0)), default=None)

    def why(self, row: TunedRow) -> str:
        """Say in a sentence what was chosen, and why."""
        config = row.config
        what = " ".join(filter(None, [row.method, config.title]))
        budget = f" at budget {config.budget:g}" if config.adjustable else ""
        return (
            f"foveal tune chose {what}{budget}, {row.precision}: {100 * row.miou:.1f} mIoU at work "
            f"{row.work:.3f} on {self.images} images of {self.data}, dense {100 * self.dense_miou:.1f}"
        )

    def save(self, model: Model) -> Path:
        """Write it beside the model, or where this machine keeps measurements; return the file.

        Raises:
            ValueError: It cannot be written, or what is beside the model cannot be replaced.
        """
        return TUNED.save(model, self.weights, asdict(self))


def _check(found: TunedSettings) -> None:
    for row in found.rows:
        _ = row.config


TUNED = Beside(
    "tuned",
    TunedSettings,
    "foveal tune",
    "{name} has not been tuned yet; run foveal tune {model} --data KIND:PATH",
    _check,
)


def find_tuned(model: Model) -> TunedSettings | None:
    """Read what `foveal tune` found for a model; None if nothing was, or for other weights.

    Raises:
        Unusable: What is there is damaged: without it, other settings would be used unnoticed.
    """
    return TUNED.find(model)


def found_before(model: Model, anew: Collection[str]) -> tuple[TunedRow, ...]:
    """Return what was found for these weights, but for the methods that are searched anew."""
    found = find_tuned(model)
    return () if found is None else tuple(row for row in found.rows if row.method not in anew)
