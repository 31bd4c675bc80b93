"""What `foveal bench` measured, as terminal text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from typer import style

from foveal.reporting.table import giga, table


def bench_text(result: Mapping[str, Any]) -> str:
    """Speed of dense runtimes and of adaptive rows, in turns; what `foveal.benchmark.bench` returns."""
    height, width = result["size"]
    batch = f"{result['batch']} x " if result["batch"] > 1 else ""
    threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    where = f"{result['machine']}, {threads}; median of {result['repeat']} in turns, from image to labels"
    best, macs = result["best_static"], giga(result["dense_macs"])
    random = ", random weights: agreement says nothing" if result["weights"] == "random" else ""
    parts = [
        f"{style(result['model'], bold=True)}  {batch}{width} x {height} px, {macs} MACs{random}",
        f"{style(where, dim=True)}\n",
        f"{_dense_table(result['dense'], best['runtime'])}\n",
        _adaptive_table(result["adaptive"]),
        f"speed-up over {best['runtime']}, {best['ms']:.1f} ms; own: over our own dense network; eta is "
        "speed-up x work, 1 if all is saved",
    ]
    return "\n".join(parts)


def operations_text(result: Mapping[str, Any]) -> str:
    """Speed operation by operation and stage by stage; what `foveal.benchmark.profile_ops` returns."""
    height, width = result["size"]
    plan, whole = result["plan"], result["whole"]
    threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    where = f"{result['machine']}, {threads}; median of {result['repeat']} rounds in turns"
    decided = (
        f"{plan['tiles']} tiles of {plan['tile']} px, work {plan['work']:.3f} at budget {plan['budget']:g}"
    )
    calls = f"in one call: dense {whole['dense_ms']:.2f} ms, tiles {whole['tiles_ms']:.2f} ms"
    around = ", ".join(f"{name} {ms:.2f}" for name, ms in result["around"].items())
    parts = [
        f"{style(result['model'], bold=True)}  {result['batch']} x {width} x {height} px, {decided}",
        f"{style(where, dim=True)}\n",
        f"{_speed_table(('operation', 'what', 'map'), result['nodes'], _node_cells)}\n",
        f"{_speed_table(('stage',), result['stages'], lambda row: [row['stage']])}\n",
        f"{calls}; around it: {around} ms",
        "GFLOP/s are nominal: two FLOPs a multiply-accumulate of the plain convolution",
    ]
    return "\n".join(parts)


def _speed_table(
    first: Sequence[str], rows: Sequence[Mapping[str, Any]], cells: Callable[[Mapping[str, Any]], list[str]]
) -> str:
    """Tabulate rows that have times dense and on tiles."""
    named = "dense_algorithm" in rows[0]
    head = [column for side in ("dense", "tiles") for column in ([side] * named + [f"{side} ms", "GFLOP/s"])]
    lines = []
    for row in rows:
        line = cells(row)
        for side in ("dense", "tiles"):
            line += [row[f"{side}_algorithm"] or "-"] if named else []
            line += [f"{row[f'{side}_ms']:.3f}", f"{row[f'{side}_gflops']:.1f}"]
        lines.append(line)
    return table([*first, *head], lines)


def _node_cells(row: Mapping[str, Any]) -> list[str]:
    return [row["name"], row["operation"], " x ".join(map(str, row["shape"][1:]))]


def _dense_table(rows: Sequence[Mapping[str, Any]], best: str) -> str:
    head = ("dense", "settings", "ms", "p95", "error", "")
    cells = [
        (
            row["runtime"],
            row["settings"],
            f"{row['ms']:.1f}",
            f"{row['p95']:.1f}",
            f"{row['error']:.0e}",
            "fastest peer" if row["runtime"] == best else "",
        )
        for row in rows
    ]
    return table(head, cells)


def _adaptive_table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = [
        *("method", "policy", "tile", "budget", "coarsest", "work", "MACs", "ms", "p95"),
        *("speed-up", "eta", "own", "agrees", "decides"),
    ]
    memory = "peak_mb" in rows[0]
    return table(
        [*head, *(["peak MB", "dense MB"] if memory else [])], [_adaptive_cells(row) for row in rows]
    )


def _adaptive_cells(row: Mapping[str, Any]) -> list[str]:
    cells = [
        row["method"],
        row["policy"],
        f"{row['tile']}",
        f"{row['budget']:.2f}",
        f"{row['coarsest']}",
        f"{row['work']:.3f}",
        giga(row["macs"]),
        f"{row['ms']:.1f}",
        f"{row['p95']:.1f}",
        f"{row['speedup']:.2f}",
        f"{row['eta']:.2f}",
        f"{row['own_speedup']:.2f}",
        f"{row['agreement']:.2%}",
        "-" if row["decide_ms"] is None else f"{row['decide_ms']:.1f}",
    ]
    return cells + [f"{row[key]:.0f}" for key in ("peak_mb", "dense_peak_mb") if key in row]
