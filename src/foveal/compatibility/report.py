"""What is known about a network on tiles, as a value and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foveal.compatibility.survey import Finding

TOLERANCE = 1e-4
"""Largest difference from the dense answer that counts as equal, relative to its largest value."""
MIXED_TOLERANCE = 1e-3
"""The same for mixed plans: whole maps and tiles add in another order, which random networks magnify."""
KEPT = 1.1
"""MACs, as a multiple of the budget, above which the code that is shown runs everything instead."""

VERDICTS = {
    (True, True): "equals the dense network",
    (False, True): "equals the dense network but for rounding, and in double precision to the last bits",
    (False, False): "does NOT equal the dense network",
}
"""What is said of levels that are near, and equal."""


@dataclass(frozen=True)
class Comparison:
    """All tiles at one level, beside the dense network on the image reduced to it.

    Attributes:
        size: Height and width of the image [px].
        level: Level of all tiles.
        difference: Largest difference of the logits; None if it could not run.
        scale: Largest value of the dense answer.
        error: Why it could not run, and what to do; empty if it ran.
        geometry: Whether another size of the image mends that.
        rounding: Difference that rounding explains; known where it is more than `TOLERANCE`.
    """

    size: tuple[int, int]
    level: int
    difference: float | None
    scale: float
    error: str = ""
    geometry: bool = False
    rounding: float = 0.0

    @property
    def near(self) -> bool:
        """Whether the tiles give the dense answer to `TOLERANCE`."""
        return self.difference is not None and self.difference <= TOLERANCE * max(self.scale, 1e-30)

    @property
    def equal(self) -> bool:
        """Whether the tiles give the dense answer, but for rounding."""
        return self.near or (self.difference is not None and self.difference <= self.rounding)


@dataclass(frozen=True)
class MixedRun:
    """A random plan of several levels, over a batch of two images.

    Attributes:
        size: Height and width of the images [px].
        finite: Whether all logits are finite.
        influence: Largest difference that the other image of the batch makes; None if it could not run.
        scale: Largest value of the answer.
        error: Why it could not run; empty if it ran.
        difference: Largest difference of the logits of one image from what the plan means, computed without
            tiles by one dense network a level; None if that could not be.
        unjudged: Why not.
        rounding: Difference that rounding explains; known where one is more than its tolerance.
    """

    size: tuple[int, int]
    finite: bool
    influence: float | None
    scale: float
    error: str = ""
    difference: float | None = None
    unjudged: str = ""
    rounding: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether it ran, gave finite logits that are not known to be wrong, and kept the images apart."""
        allowed = max(TOLERANCE * self.scale, self.rounding)
        return self.finite and self.influence is not None and self.influence <= allowed and not self.wrong

    @property
    def right(self) -> bool:
        """Whether the logits are what the plan means; not where that could not be computed."""
        return self.difference is not None and not self.wrong

    @property
    def wrong(self) -> bool:
        """Whether the logits are known to be others than the plan means."""
        allowed = max(MIXED_TOLERANCE * max(self.scale, 1e-30), self.rounding)
        return self.difference is not None and not self.difference <= allowed


@dataclass(frozen=True)
class NetworkReport:
    """What is known about a network on tiles.

    Attributes:
        network: Its class.
        tile: Side of a tile [px].
        findings: Operations without a rule, in the order of their first call.
        declared: Dense modules that the network itself asks for.
        dense_modules: Further modules to run dense, the fewest that mend all findings; None if none can.
        comparisons: Every level alone, at a round size and a ragged one.
        mixed: Random plans of several levels.
        dense_share: Share of the dense network's MACs that the dense modules take; None if it cannot run.
        macs: MACs at `budget`, as a share of the dense network's; None if it cannot run.
        budget: What `macs` is predicted for.
        notes: What else the user should know.
        all_dense: Whether dense modules mend all findings, and leave nothing for tiles.
    """

    network: str
    tile: int
    findings: tuple[Finding, ...]
    declared: tuple[str, ...]
    dense_modules: tuple[str, ...] | None
    comparisons: tuple[Comparison, ...]
    mixed: tuple[MixedRun, ...]
    dense_share: float | None
    macs: float | None
    budget: float
    notes: tuple[str, ...] = ()
    all_dense: bool = False

    @property
    def equal(self) -> bool:
        """Whether it runs, and gives the dense answer at every level of every size that fits it."""
        ran = [c for c in self.comparisons if not c.geometry]
        starts = bool(ran) and ran[0].size == self.comparisons[0].size and ran[0].level == 0
        return starts and all(c.equal for c in ran) and all(run.sound for run in self.mixed)

    @property
    def judged(self) -> bool:
        """Whether values under a plan of mixed levels were found right, where they could be at all."""
        return any(run.right for run in self.mixed)

    @property
    def whole_map_modules(self) -> tuple[str, ...]:
        """All modules that run dense: those that the network declares, and further ones."""
        return (*self.declared, *(self.dense_modules or ()))

    @property
    def code(self) -> str:
        """What to paste to run the network on tiles."""
        return self.code_for("")

    def code_for(self, method: str) -> str:
        """Return what to paste to run the network by a method; by the usual one if none is named."""
        named = f", method={method!r}" if method else ""
        if self.whole_map_modules:
            named += f", dense_modules={self.whole_map_modules!r}"
        kept = self.macs is None or self.macs <= KEPT * self.budget
        return (
            "import foveal\n\n"
            f"model = foveal.adapt(network{named}, tile={self.tile})\n"
            f"labels = model(images, budget={self.budget if kept else 1.0}).labels"
        )

    def __str__(self) -> str:
        """Say whether the network runs on tiles, what it saves, and how to write it."""
        return self.text()

    def text(self, method: str = "", more: Sequence[str] = ()) -> str:
        """Say it for a method, with more lines about what it saves."""
        lines = [self._verdict()]
        if self.declared:
            lines.append(f"  it sends {', '.join(self.declared)} through a dense map by itself")
        for operation in dict.fromkeys(finding.operation for finding in self.findings):
            lines.append(f"  {operation}")
            lines += [f"      in {f.where}: {f.remedy}" for f in self.findings if f.operation == operation]
        lines += [f"  {line}" for line in (*self._runs(), *self._cost(), *more)]
        lines += [f"  note: {note}" for note in self.notes]
        if self.equal:
            lines += ["", *self.code_for(method).splitlines()]
        return "\n".join(lines)

    def _verdict(self) -> str:
        if self.dense_modules is None:
            sides = any(finding.geometry for finding in self.findings)
            why = "with this size and tile" if sides else "whatever dense_modules names"
            return f"{self.network} does not run on tiles {why}"
        with_these = f" with dense_modules={self.dense_modules!r}" if self.dense_modules else ""
        verdict = "runs" if self.equal else "does NOT give the dense answer"
        unknown = ", right at every level alone; not judged where levels are mixed"
        said = unknown if self.equal and not self.judged else ""
        return f"{self.network} {verdict} on tiles{with_these}{said}"

    def _runs(self) -> list[str]:
        lines = []
        for size in dict.fromkeys(c.size for c in self.comparisons):
            here = [c for c in self.comparisons if c.size == size]
            for kind, words in VERDICTS.items():
                some = [c for c in here if not c.error and (c.near, c.equal) == kind]
                if some:
                    worst = max(c.difference or 0.0 for c in some)
                    levels = ", ".join(str(c.level) for c in some)
                    lines.append(
                        f"{size[0]}x{size[1]} px, all tiles at level {levels}: "
                        f"{words} (largest difference {worst:.2g})"
                    )
            lines += [f"{size[0]}x{size[1]} px, level {c.level}: {c.error}" for c in here if c.error]
        return [*lines, *self._mixtures()]

    def _mixtures(self) -> list[str]:
        lines = []
        for run in self.mixed:
            where = f"{run.size[0]}x{run.size[1]} px, levels mixed"
            if run.wrong:
                lines.append(
                    f"{where}: NOT what one dense network a level gives (difference {run.difference:.2g})"
                )
            elif not run.sound:
                why = run.error or ("images of a batch influence one another" if run.finite else "not finite")
                lines.append(f"{where}: {why}")
        judged = [run.difference for run in self.mixed if run.difference is not None]
        if self.mixed and all(run.sound for run in self.mixed):
            known = f", {len(judged)} equal one dense network a level ({max(judged):.2g})" if judged else ""
            lines.append(f"{len(self.mixed)} random plans of mixed levels: finite, images kept apart{known}")
        left = dict.fromkeys(f"{r.size[0]}x{r.size[1]} px: {r.unjudged}" for r in self.mixed if r.unjudged)
        lines += [f"values of mixed levels are not compared at {why}" for why in left]
        return lines

    def _cost(self) -> list[str]:
        if self.macs is None or self.dense_share is None:
            return []
        names = self.whole_map_modules
        share = (
            [f"dense modules ({', '.join(names)}) take {self.dense_share:.1%} of the MACs"] if names else []
        )
        return [*share, f"at budget {self.budget} it takes {self.macs:.2f} of the dense MACs"]
