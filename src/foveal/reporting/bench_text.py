"""What `foveal bench` found, for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from typer import style

from foveal.benchmark.operation_results import OperationRow, OperationsResult, Speed, StageRow
from foveal.benchmark.results import BenchResult, BenchRow, DenseRow, Fastest, Measured
from foveal.reporting.table import giga, table


def bench_text(result: BenchResult) -> str:
    """Write the speed of static runtimes and of adaptive rows."""
    random = ", random weights: labels mean nothing" if result.weights == "random" else ""
    rivals, any_best = result.rivals, result.best_static_any
    named = " and ".join(f"{best.runtime} in {best.precision}, {best.ms:.1f} ms" for best in rivals)
    where = f"{_where(result)}; median of {result.repeat} in turns, from image to labels"
    explained = (
        f"speed-up over {named}; own: over our own dense network; both in the row's precision; eta is "
        "speed-up x work, 1 if all is saved"
    )
    beside = f"fastest in any precision: {any_best.runtime} in {any_best.precision}, {any_best.ms:.1f} ms"
    parts = [
        f"{style(result.model, bold=True)}  {_what(result)}, {giga(result.dense_macs)} MACs{random}",
        f"{style(where, dim=True)}\n",
        f"{_dense_table(result.dense, rivals)}\n",
        _adaptive_table(result.adaptive),
        explained,
        *_masked(result.adaptive),
        *([beside] if any_best not in rivals else []),
    ]
    return "\n".join(parts)


def operations_text(result: OperationsResult) -> str:
    """Write speed operation by operation and stage by stage."""
    plan, whole = result.plan, result.whole
    where = f"{_where(result)}; median of {result.repeat} rounds in turns"
    decided = f"{plan.tiles} tiles of {plan.tile} px, work {plan.work:.3f} at budget {plan.budget:g}"
    calls = f"in one call: dense {whole.dense_ms:.2f} ms, tiles {whole.tiles_ms:.2f} ms"
    around = ", ".join(f"{name} {ms:.2f}" for name, ms in vars(result.around).items())
    parts = [
        f"{style(result.model, bold=True)}  {_what(result)}, {decided}",
        f"{style(where, dim=True)}\n",
        f"{_operation_table(result.nodes)}\n",
        f"{_stage_table(result.stages)}\n",
        f"{calls}; around it: {around} ms",
        "GFLOP/s are nominal: two FLOPs a multiply-accumulate of the plain convolution",
    ]
    return "\n".join(parts)


def _what(result: Measured) -> str:
    height, width = result.size
    batch = f"{result.batch} x " if result.batch > 1 else ""
    return f"{batch}{width} x {height} px"


def _where(result: Measured) -> str:
    return f"{result.machine}, {result.threads} thread{'s' if result.threads > 1 else ''}"


def _operation_table(rows: Sequence[OperationRow]) -> str:
    head = ["operation", "what", "map", "dense", "dense ms", "GFLOP/s", "tiles", "tiles ms", "GFLOP/s"]
    cells = [
        (
            row.name,
            row.operation,
            " x ".join(map(str, row.shape[1:])),
            row.dense_algorithm or "-",
            *_dense_speed(row),
            row.tiles_algorithm or "-",
            *_tiles_speed(row),
        )
        for row in rows
    ]
    return table(head, cells)


def _stage_table(rows: Sequence[StageRow]) -> str:
    head = ["stage", "dense ms", "GFLOP/s", "tiles ms", "GFLOP/s"]
    return table(head, [(row.stage, *_dense_speed(row), *_tiles_speed(row)) for row in rows])


def _dense_speed(row: Speed) -> tuple[str, str]:
    return f"{row.dense_ms:.3f}", f"{row.dense_gflops:.1f}"


def _tiles_speed(row: Speed) -> tuple[str, str]:
    return f"{row.tiles_ms:.3f}", f"{row.tiles_gflops:.1f}"


def _dense_table(rows: Sequence[DenseRow], rivals: Sequence[Fastest]) -> str:
    fastest = {(best.runtime, best.precision) for best in rivals}
    head = ("dense", "precision", "settings", "ms", "p95", "error", "agrees", "")
    cells = [
        (
            row.runtime,
            row.precision,
            row.settings,
            f"{row.ms:.1f}",
            f"{row.p95:.1f}",
            f"{row.error:.0e}",
            _agreement(row),
            "fastest" if (row.runtime, row.precision) in fastest else "",
        )
        for row in rows
    ]
    return table(head, cells)


def _agreement(row: DenseRow | BenchRow) -> str:
    return "-" if row.agreement is None else f"{row.agreement:.2%}"


COLUMNS: tuple[tuple[str, Callable[[BenchRow], str]], ...] = (
    ("method", lambda row: row.method),
    ("policy", lambda row: row.policy),
    ("precision", lambda row: row.precision),
    ("engine", lambda row: row.engine),
    ("tile", lambda row: f"{row.tile}"),
    ("budget", lambda row: f"{row.budget:.2f}"),
    ("max level", lambda row: f"{row.max_level}"),
    ("work", lambda row: f"{row.work:.3f}"),
    ("MACs", lambda row: giga(row.macs)),
    ("ms", lambda row: f"{row.ms:.1f}"),
    ("p95", lambda row: f"{row.p95:.1f}"),
    ("speed-up", lambda row: f"{row.speedup:.2f}"),
    ("eta", lambda row: f"{row.eta:.2f}"),
    ("own", lambda row: f"{row.own_speedup:.2f}"),
    ("agrees", _agreement),
    ("decides", lambda row: "-" if row.decide_ms is None else f"{row.decide_ms:.1f}"),
)
WANTED: tuple[str, Callable[[BenchRow], str]] = (
    "mask",
    lambda row: "-" if row.wanted is None else f"{row.wanted:.1%}",
)
MEMORY: tuple[tuple[str, Callable[[BenchRow], str]], ...] = (
    ("peak MB", lambda row: f"{row.peak_mb:.0f}"),
    ("dense MB", lambda row: f"{row.dense_peak_mb:.0f}"),
)


def _adaptive_table(rows: Sequence[BenchRow]) -> str:
    columns = COLUMNS if rows[0].peak_mb is None else COLUMNS + MEMORY
    if any(row.wanted is not None for row in rows):
        columns = (*columns[:6], WANTED, *columns[6:])
    return table([name for name, _ in columns], [[cell(row) for _, cell in columns] for row in rows])


def _masked(rows: Sequence[BenchRow]) -> list[str]:
    """Say what a mask saves, row by row: each is beside the same without one."""
    found, whole = [], {_setting(row): row for row in rows if row.wanted is None}
    for row in rows:
        if row.wanted is not None and (before := whole.get(_setting(row))) is not None:
            found.append(
                f"the mask wants {row.wanted:.1%} of the pixels: at budget {row.budget:g} in {row.precision} "
                f"it saves {before.ms - row.ms:.1f} of {before.ms:.1f} ms and "
                f"{giga(max(0, before.macs - row.macs))} of {giga(before.macs)} MACs"
            )
    return found


def _setting(row: BenchRow) -> tuple[object, ...]:
    return row.method, row.policy, row.budget, row.precision, row.max_level, row.tile, row.coarse_level
