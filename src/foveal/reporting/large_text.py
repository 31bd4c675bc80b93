"""What `foveal large` says of an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foveal.inference.large import LargeResult


@dataclass(frozen=True)
class LargeRow:
    """A large image, for other programs.

    Attributes:
        image: The file.
        files: What was written, by name; empty while other shards have something to do.
        size: Height and width [px].
        megapixels: Their product.
        wanted: Share of the cells in which something is wanted.
        refined: Share of the cells that were computed at full resolution.
        planned: What the budget counts: share of the dense work on what is wanted.
        work: The same with what windows compute twice.
        windows: Windows of the image.
        windows_read: Those that were read at full resolution.
        reach: Pixels beyond a border that decide labels; null if the network sees whole maps.
        tile: Side of a cell [px].
        coarse_level: Level of the coarse pass.
        classes: Share of the labelled pixels of every class, by name.
        seconds: Time of this process [s].
        speed: Megapixels a second.
    """

    image: Path
    files: dict[str, Path]
    size: tuple[int, int]
    megapixels: float
    wanted: float
    refined: float
    planned: float
    work: float
    windows: int
    windows_read: int
    reach: int | None
    tile: int
    coarse_level: int
    classes: dict[str, float]
    seconds: float
    speed: float


def large_row(image: Path, found: LargeResult) -> LargeRow:
    """Return the row of a result."""
    labelled = max(1, sum(found.pixels[:-1]))
    shares = {name: round(n / labelled, 6) for name, n in zip(found.classes, found.pixels, strict=False)}
    return LargeRow(
        image,
        found.files,
        found.size,
        round(found.size[0] * found.size[1] / 1e6, 3),
        round(found.wanted, 4),
        round(found.refined, 4),
        round(found.planned, 4),
        round(found.work, 4),
        found.windows,
        found.windows_read,
        found.reach,
        found.tile,
        found.coarse_level,
        shares,
        round(found.seconds, 3),
        round(found.speed, 3),
    )


def large_text(image: Path, found: LargeResult) -> str:
    """Say what became of an image, in a few lines."""
    row = large_row(image, found)
    lines = [f"{image}  {row.size[0]}x{row.size[1]} px, {row.megapixels:g} MP"]
    if not row.files:
        return (
            f"{lines[0]}\n  waiting  other shards have something to do; run this one again when they are done"
        )
    lines.append(
        f"  work     {row.work:.3f} of dense on the {row.wanted:.1%} that is wanted; {row.planned:.3f} "
        "without what windows compute twice"
    )
    lines.append(f"  windows  {row.windows_read} of {row.windows} read at full resolution")
    most = sorted(row.classes.items(), key=lambda item: -item[1])
    lines.append("  classes  " + ", ".join(f"{name} {share:.1%}" for name, share in most if share > 0))
    lines.append(f"  time     {row.seconds:.1f} s, {row.speed:.1f} MP/s")
    if row.reach is None:
        lines.append("  context  the network sees whole maps: its context is that of each window")
    lines.append("  wrote    " + ", ".join(str(file) for file in row.files.values()))
    return "\n".join(lines)
