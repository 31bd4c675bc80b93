"""Results as terminal text and as plain values for JSON."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typer import style

from foveal.geometry.plan import SKIP, Plan, shade
from foveal.reporting.pictures import level_name, shares

if TYPE_CHECKING:
    from foveal.inference.runner import Result

WIDEST = 40
"""Most cells of a plan in a row of the terminal; a cell is two characters wide."""
SEEN = 5
"""Classes named in a report."""
LABEL = 9
"""Width of the first column of a report."""


def segment_row(path: Path, result: Result, files: dict[str, Path], classes: Sequence[str]) -> dict[str, Any]:
    """Result of one image as plain values; the keys are documented in the manual and stay."""
    row: dict[str, Any] = {
        "image": str(path),
        "size": list(result.size),
        "work": round(result.work, 4),
        "macs": result.macs,
        "dense_macs": result.dense_macs,
        "ms": round(result.timing.median, 2),
    }
    if result.dense_timing is not None and result.agreement is not None:
        row |= {
            "ms_p95": round(result.timing.p95, 2),
            "dense_ms": round(result.dense_timing.median, 2),
            "dense_ms_p95": round(result.dense_timing.p95, 2),
            "agreement": round(result.agreement, 5),
        }
    if result.method_timing is not None:
        row["adaptive_ms"] = round(result.method_timing.median, 2)
    predicted = result.choice.predicted_ms
    return row | {
        "dense": bool(result.reason),
        "reason": result.reason or None,
        "budget": result.choice.budget,
        "latency": result.choice.latency,
        "predicted_ms": None if predicted is None else round(predicted, 2),
        **risk_row(result),
        "levels": {str(level): round(share, 4) for level, share in shares(result.levels).items()},
        "classes": {name: round(share, 4) for name, share in class_shares(result, classes)},
        "files": {kind: str(file) for kind, file in files.items()},
    }


def segment_text(path: Path, result: Result, files: dict[str, Path], classes: Sequence[str]) -> str:
    """Result of one image for the terminal, the plan drawn."""
    height, width = result.size
    seen = ", ".join(f"{name} {share:.0%}" for name, share in class_shares(result, classes)[:SEEN])
    entries = [
        ("work", f"{style(f'{result.work:.3f}', bold=True)} of dense"),
        ("MACs", f"{giga(result.macs)} of {giga(result.dense_macs)}, {result.macs / result.dense_macs:.0%}"),
        ("time", time_text(result)),
        ("latency", latency_text(result)),
        ("risk", risk_text(result)),
        ("estimate", "" if result.estimate is None else f"{result.estimate:.2%} balanced disagreement"),
        ("agrees", "" if result.agreement is None else f"{result.agreement:.2%} of the pixels with dense"),
        ("sees", seen),
        ("wrote", _braces(list(files.values()))),
    ]
    parts = [f"{style(path.name, bold=True)}  {width} x {height} px", ""]
    parts += [
        _indent(plan_text(result.levels, result.tile) if result.plans else f"dense network: {result.reason}"),
        "",
    ]
    parts += [f"  {style(name.ljust(LABEL), dim=True)}{text}" for name, text in entries if text]
    return "\n".join([*parts, *(f"  {line}" for line in [advice(result)] if line)])


def segment_line(path: Path, result: Result) -> str:
    """Result of one image among many."""
    height, width = result.size
    agrees = "" if result.agreement is None else f"  agrees {result.agreement:.1%}"
    agrees += "" if result.estimate is None else f"  estimate {result.estimate:.1%}"
    dense = f"  {style('dense: ' + result.reason, dim=True)}" if result.reason else ""
    latency = "" if result.reason else f"  {latency_text(result, short=True)}".rstrip()
    return (
        f"{path.name:<32} {f'{width}x{height}':>11}  work {result.work:.3f}  {giga(result.macs):>8} of "
        f"{giga(result.dense_macs):>8}  {time_text(result, short=True)}{latency}{agrees}{dense}"
    )


def summary(results: Sequence[dict[str, Any]], out: Path) -> str:
    """Close a run over several images; takes their rows."""
    count = len(results)
    work = sum(row["work"] for row in results) / count
    share = sum(row["macs"] for row in results) / sum(row["dense_macs"] for row in results)
    return f"{count} images, work {work:.3f} on average, {share:.0%} of the dense MACs; pictures in {out}"


def class_shares(result: Result, classes: Sequence[str]) -> list[tuple[str, float]]:
    """Classes that occur in the labels and their share of the pixels, largest first."""
    counts = torch.bincount(result.labels.flatten().int(), minlength=len(classes)).tolist()
    total = result.labels.numel()
    found = [(name, count / total) for name, count in zip(classes, counts, strict=False) if count]
    return sorted(found, key=lambda pair: -pair[1])


def time_text(result: Result, short: bool = False) -> str:
    """Milliseconds, the dense network's beside if they were measured."""
    ours, dense = result.timing, result.dense_timing
    if dense is None or (result.reason and short):
        run = "one counted run" if result.choice.latency is None else "one run"
        note = "" if short else style(f" ({run}; --compare measures)", dim=True)
        return f"{ours.median:.0f} ms{note}"
    if result.reason:
        unchosen = result.method_timing
        beside = "" if unchosen is None else f"; on tiles {unchosen.median:.0f} ms"
        return f"{dense.median:.0f} ms, the dense network{beside}"
    text = f"{ours.median:.0f} ms, dense {dense.median:.0f} ms: {dense.median / ours.median:.2f}x"
    spread = f" (median of {len(ours.runs)} in turns; p95 {ours.p95:.0f} and {dense.p95:.0f})"
    return text if short else text + style(spread, dim=True)


def latency_text(result: Result, short: bool = False) -> str:
    """What was asked for, chosen, predicted and measured; empty if no latency was asked for."""
    choice = result.choice
    if choice.latency is None or choice.predicted_ms is None:
        return ""
    chosen = "the dense network" if choice.reason else f"budget {choice.budget:.3f}"
    if short:
        return f"{chosen}, predicted {choice.predicted_ms:.0f} of {choice.latency:g} ms"
    asked = f"{choice.latency:g} ms asked for, {chosen}"
    return f"{asked}: predicted {choice.predicted_ms:.0f} ms, measured {result.timing.median:.0f} ms"


def risk_row(result: Result) -> dict[str, Any]:
    """Tolerated and estimated disagreement, and the setting that keeps it; None each without a risk."""
    risk, estimate = result.risk, result.estimate
    setting = None if risk is None else risk.setting
    return {
        "risk": None if risk is None else risk.allowed,
        "estimate": None if estimate is None else round(estimate, 5),
        "setting": setting
        and {
            "threshold": setting.threshold,
            "work": round(setting.work, 4),
            "bound": round(setting.bound, 5),
        },
    }


def risk_text(result: Result) -> str:
    """What was tolerated, and what keeps it; empty without a risk."""
    if result.risk is None:
        return ""
    setting = result.risk.setting
    kept = f"kept at {setting.bound:.2%} by refining what gains {setting.threshold:.3g} or more"
    how = (
        "only the dense network keeps it" if setting.dense else f"{kept}, work {setting.work:.3f} on average"
    )
    return f"{result.risk.allowed:.2%} allowed on average, {how}"


def advice(result: Result) -> str:
    """Say plainly where the other choice is the better one; empty if it is not."""
    ours, dense, unchosen = result.timing, result.dense_timing, result.method_timing
    if unchosen is not None and unchosen.median < ours.median:
        text = "tiles are faster here than was predicted; `foveal calibrate` measures this machine again"
    elif result.reason:
        return ""
    elif dense is not None and ours.median > dense.median:
        text = f"dense is faster here: {dense.median:.0f} ms against {ours.median:.0f} ms; use --method dense"
    elif result.work >= 1:
        text = "this is no less work than the dense network's; use --method dense, or a smaller budget"
    else:
        return ""
    return style(text, fg="yellow")


def plan_text(levels: Tensor, tile: int, widest: int = WIDEST) -> str:
    """Draw levels [Gh, Gw] with block characters, their legend below.

    A grid of more columns than fit is drawn more coarsely: every square shows the level that most of its
    cells have.
    """
    widest = max(4, min(widest, (shutil.get_terminal_size().columns - 4) // 2))
    cells = _coarser(levels, -(-levels.shape[1] // widest))
    rows = ["".join(shade(level) * 2 for level in row) for row in cells.tolist()]
    legend = "   ".join(f"{shade(k)} {level_name(k)} {share:.0%}" for k, share in shares(levels).items())
    return "\n".join([*rows, "", f"{legend}   {style(f'tile {tile} px', dim=True)}"])


def plan_row(plan: Plan, image: int = 0) -> dict[str, Any]:
    """A saved plan of one image as plain values."""
    levels = {str(level): round(share, 4) for level, share in shares(plan.levels[image]).items()}
    return {
        "size": list(plan.size),
        "tile": plan.tile,
        "work": round(float(plan.work[image]), 4),
        "levels": levels,
    }


def evaluation_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Quality and cost of methods over a data set, the dense network first."""
    head = ["method", "policy", "budget", "work", "mIoU", "pixels", "boundary F", "agrees", "MACs", "ms"]
    risky = any("disagreement" in row for row in rows)
    cells = [
        (
            row["method"],
            row["policy"] or "-",
            f"{row['budget']:.2f}",
            f"{row['work']:.3f}",
            f"{100 * row['miou']:.2f}",
            f"{100 * row['pixel_accuracy']:.2f}",
            f"{100 * row['boundary_f']:.2f}",
            f"{100 * row['agreement']:.2f}",
            giga(row["macs"]),
            "-" if row["ms"] is None else f"{row['ms']:.0f}",
            *([_share(row, "risk"), _share(row, "disagreement")] if risky else []),
        )
        for row in rows
    ]
    head += ["risk", "disagreement"] if risky else []
    return (
        f"{table(head, cells)}\n{rows[0]['images']} images; mIoU, pixels, boundary F and agreement in percent"
    )


def _share(row: Mapping[str, Any], key: str) -> str:
    return f"{row[key]:.2%}" if key in row else "-"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text; the first is left-aligned, numbers are right-aligned."""
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
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


def _coarser(levels: Tensor, factor: int) -> Tensor:
    """Reduce a grid of cells; every square takes its most frequent level, the finer of two."""
    if factor == 1:
        return levels
    rows, columns = levels.shape
    found = sorted(set(levels.flatten().tolist()), key=lambda level: (level == SKIP, level))
    masks = torch.stack([(levels == level).float() for level in found])[None]
    counts = torch.nn.functional.avg_pool2d(masks, factor, ceil_mode=True, divisor_override=1)[0]
    return torch.tensor(found)[counts.argmax(0)][: -(-rows // factor), : -(-columns // factor)]


def _indent(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())


def _braces(files: list[Path]) -> str:
    """Names of files that begin alike, as a shell would write them."""
    if not files:
        return ""
    names = [str(file) for file in files]
    stem = names[0].rpartition("_")[0] + "_"
    return f"{stem}{{{','.join(name.removeprefix(stem) for name in names)}}}"
