"""Columns of text and readable numbers for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from typer import style

from foveal.storage.names import shown


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, without styles; the first is left-aligned, numbers are right-aligned."""
    lines = [list(header), *([shown(cell) for cell in row] for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
    number = [all(row[k][:1].isdigit() for row in lines[1:]) for k in range(len(header))]
    texts = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, number, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join([style(texts[0], dim=True), *texts[1:]])


def giga(macs: float) -> str:
    """Multiply-accumulates, readable."""
    unit, name = next((u, n) for u, n in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")) if macs >= u or u == 1)
    return (
        f"{macs / unit:.3g} {name}".rstrip() if macs / unit < 1000 else f"{macs / unit:.0f} {name}".rstrip()
    )
