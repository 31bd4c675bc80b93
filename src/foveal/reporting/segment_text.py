"""What `foveal segment` found about an image, as terminal text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from typer import style

from foveal.inference.result import Result
from foveal.inference.row import SegmentRow, class_shares
from foveal.reporting.plan_text import plan_text
from foveal.reporting.table import giga
from foveal.storage.names import shown

SEEN = 5
"""Classes named in a report."""
LABEL = 9
"""Width of the first column of a report."""


def segment_text(path: Path, result: Result, files: dict[str, Path], classes: Sequence[str]) -> str:
    """Result of one image for the terminal, the plan drawn."""
    height, width = result.size
    seen = ", ".join(f"{shown(name)} {share:.0%}" for name, share in class_shares(result, classes)[:SEEN])
    entries = [
        ("work", f"{style(f'{result.work:.3f}', bold=True)} of dense{_shrunk(result)}"),
        ("MACs", f"{giga(result.macs)} of {giga(result.dense_macs)}, {result.macs / result.dense_macs:.0%}"),
        ("setting", result.chosen),
        ("time", time_text(result)),
        ("latency", latency_text(result)),
        ("risk", risk_text(result)),
        ("estimate", estimate_text(result)),
        ("agrees", "" if result.agreement is None else f"{result.agreement:.2%} of the pixels with dense"),
        ("sees", seen),
        ("wrote", _braces(list(files.values()))),
    ]
    parts = [f"{style(shown(path.name), bold=True)}  {width} x {height} px", ""]
    parts += [
        _indent(_plan(result)),
        "",
    ]
    parts += [f"  {style(name.ljust(LABEL), dim=True)}{text}" for name, text in entries if text]
    return "\n".join([*parts, *(f"  {line}" for line in [advice(result)] if line)])


def _plan(result: Result) -> str:
    """Draw where was computed; say why the dense network ran."""
    if result.cells is None:
        return f"dense network{_shrunk(result)}: {result.reason}"
    drawn = plan_text(result.levels, result.tile)
    return f"{drawn}\n\ndense network{_shrunk(result)}: {result.reason}" if result.reason else drawn


def _shrunk(result: Result) -> str:
    """Say at which scale, where the image was shrunk first."""
    return f" at scale {result.scale:g}" if result.scale < 1 else ""


def segment_line(path: Path, result: Result) -> str:
    """Result of one image among many."""
    height, width = result.size
    agrees = "" if result.agreement is None else f"  agrees {result.agreement:.1%}"
    agrees += "" if result.estimate is None else f"  estimate {result.estimate:.1%}"
    dense = f"  {style(f'dense{_shrunk(result)}: {result.reason}', dim=True)}" if result.reason else ""
    latency = "" if result.reason else f"  {latency_text(result, short=True)}".rstrip()
    return (
        f"{shown(path.name):<32} {f'{width}x{height}':>11}  work {result.work:.3f}  "
        f"{giga(result.macs):>8} of {giga(result.dense_macs):>8}  "
        f"{time_text(result, short=True)}{latency}{agrees}{dense}"
    )


def summary(rows: Sequence[SegmentRow], out: Path) -> str:
    """Close a run over several images."""
    count = len(rows)
    work = sum(row.work for row in rows) / count
    share = sum(row.macs for row in rows) / sum(row.dense_macs for row in rows)
    return f"{count} images, work {work:.3f} on average, {share:.0%} of the dense MACs; pictures in {out}"


def time_text(result: Result, short: bool = False) -> str:
    """Milliseconds, the dense network's beside if they were measured."""
    ours, dense = result.timing, result.dense_timing
    if dense is None or (result.reason and short and result.scale == 1):
        run = "one counted run" if result.counted else "one run"
        note = "" if short else style(f" ({run}; --compare measures)", dim=True)
        return f"{ours.median:.0f} ms{note}"
    if result.reason and result.scale == 1:
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


def risk_text(result: Result) -> str:
    """What was tolerated, and what keeps it; empty without a risk."""
    if result.risk is None:
        return ""
    setting = result.risk.setting
    some = "" if setting.share == 1 else f" in {setting.share:.1%} of the images"
    kept = f"kept at {setting.bound:.2%} by refining what gains {setting.threshold:.3g} or more{some}"
    how = (
        "only the dense network keeps it" if setting.dense else f"{kept}, work {setting.work:.3f} on average"
    )
    return f"{result.risk.allowed:.2%} allowed on average, {how}"


def estimate_text(result: Result) -> str:
    """What the answer probably loses, by what was left unrefined; empty without a risk."""
    if result.risk is None or result.estimate is None:
        return ""
    kinds = {"dense": "balanced disagreement", "labels": "balanced error beyond dense"}
    return f"{result.estimate:.2%} {kinds[result.risk.profile.risk_of]}"


def advice(result: Result) -> str:
    """Return a sentence if the dense network would be the better choice, else an empty string."""
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


def _indent(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())


def _braces(files: list[Path]) -> str:
    """Names of files that begin alike, as a shell would write them."""
    if not files:
        return ""
    names = [shown(file) for file in files]
    stem = names[0].rpartition("_")[0] + "_"
    return f"{stem}{{{','.join(name.removeprefix(stem) for name in names)}}}"
