"""Progress bars on stderr; a bar is told how far the work is."""

from __future__ import annotations

import sys
import time
from typing import Any

import typer


def counter(unit: str, name: str = "") -> Any:
    """Make a progress bar on stderr that is told what is done and the total."""
    from tqdm import tqdm

    bar = tqdm(desc=name or None, unit=unit, file=sys.stderr, disable=not sys.stderr.isatty())

    def report(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return report


def steps_bar(steps: int, first: int, batches: Any) -> Any:
    """Make the report of a training run: a bar in a terminal, else a line now and then."""
    from tqdm import tqdm

    bar = tqdm(total=steps, initial=first, unit="steps", file=sys.stderr, disable=not sys.stderr.isatty())
    start = time.monotonic()

    def report(step: int, values: dict[str, float]) -> None:
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        bar.update(step + 1 - bar.n)
        bar.set_postfix_str(text, refresh=False)
        if bar.disable and (step % 50 == 0 or step + 1 == steps):
            left = (time.monotonic() - start) / (step + 1 - first) * (steps - step - 1) / 60
            walked = f"  epoch {batches.epoch(step + 1):.1f}" if batches is not None else ""
            typer.echo(f"step {step + 1}/{steps}{walked}  {text}  {left:.0f} min left", err=True)

    return report


def parts_bar() -> Any:
    """Make a bar for every part of the work, by its name."""
    bars: dict[str, Any] = {}

    def report(name: str, done: int, total: int) -> None:
        bars.setdefault(name, counter("images", name))(done, total)

    return report
