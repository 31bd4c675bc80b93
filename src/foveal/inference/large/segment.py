"""A large image from disk to disk: one plan for all of it, and windows that give what the whole image would.

1.  *Blocks.* The image is read at the level of the coarse pass, from the file's own overviews where there are
    any, and the network runs on it block by block, with as much around each as it looks at. That gives labels
    for every place, and how uncertain they are.
2.  *The plan.* The budget goes to the cells of the whole image where most is gained, as coarse to fine does
    in one image of any size, in one step from the coarse level to full resolution.
3.  *Windows.* Windows with refined cells are read at full resolution and run with what their refined cells
    look at: refined cells within the network's reach, coarse ones within 2^level times that, because a coarse
    sample is 2^level times as wide (`reach.py`). Other windows keep their coarse labels, and are not read
    again.
4.  *The result* is written strip by strip.

So a network without dense modules gives the labels that `CoarseToFine` with schedule "direct" gives for the
image at once: every refined cell, and every cell beside one, whose labels are mixed with it, comes from a
run that has seen all that decides it. Where a file has overviews, the coarse pass sees these, which are
rounded; the cells of a window that are not refined are then those of the coarse pass, whatever window they
lie in. A network with dense modules, or statistics of the whole map, gets its context from the coarse pass
of the window and `reach.CONTEXT` around it: not that of the whole image, which no network was trained on.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from foveal.calibration.configure import configure
from foveal.calibration.engine import Engine, find_engine
from foveal.data.raster import ImageFormat
from foveal.hub.checkpoint import Model
from foveal.hub.fingerprint import fingerprint
from foveal.inference.large.coarse import block_part, run_coarse
from foveal.inference.large.fine import run_fine
from foveal.inference.large.grid import Cut
from foveal.inference.large.mask import open_mask
from foveal.inference.large.network import WindowNetwork
from foveal.inference.large.parts import Parts
from foveal.inference.large.plan import check_budget, make_plan
from foveal.inference.large.reach import measure_reach
from foveal.inference.large.result import LargeResult, unfinished, write_result
from foveal.inference.large.sink import beside, find_sink
from foveal.inference.large.source import open_source
from foveal.inference.large.swap import restore
from foveal.inference.large.task import CONFIDENCE, Report, Task, silent
from foveal.methods.coarse_to_fine import CoarseToFineConfig
from foveal.storage.given import need_path

METHOD, SCHEDULE = "coarse_to_fine", "direct"
WINDOW = 2048
"""Side of what is computed at once [px]; the bundled network takes 1.5 to 1.8 GiB for it."""


def segment_large(  # noqa: PLR0913
    model: Any,
    source: Any,
    out: str | Path,
    *,
    budget: float = CoarseToFineConfig.budget,
    mask: Any = None,
    window: int = WINDOW,
    confidence: bool = False,
    value_range: tuple[float, float] | None = None,
    bands: tuple[int, ...] = (),
    precision: str = "f32",
    settings: dict[str, object] | None = None,
    shard: tuple[int, int] = (1, 1),
    report: Report = silent,
) -> LargeResult:
    """Segment an image of any size from disk to disk, in memory that does not grow with its height.

    A run that was killed goes on where it was when it is called again with the same arguments.

    Args:
        model: What `foveal.load_model` or `foveal.adapt` returns, or an `Engine`.
        source: File, array [H, W(, bands)] or `Source`.
        out: File that is written: .png, .tif (COG), or the folder .zarr (OME-Zarr).
        budget: Share of the dense work on what is wanted, above 0 and at most 1; at 1 all of it is dense. It
            counts the coarse pass and the refined tiles, not what windows compute twice.
        mask: "nodata", "auto", a GeoJSON file of polygons, an image that is not 0 where something is wanted,
            of any resolution, or an array of it; None for everything. Pixels of a float image that are NaN
            in any band have no label, whatever the mask.
        window: Side of what is computed at once [px], rounded up to what tiles allow.
        confidence: Whether the probability of every label is written too, beside `out`, as bytes.
        value_range: Values that become 0 and 1; those of the kind of file if None.
        bands: Bands that are read, counted from 1; all if empty.
        precision: f32, bf16 or int8, of a model that is no engine.
        settings: Of coarse to fine: policy, tile, coarse_level, threshold, isolated_gain.
        shard: Which part of the work this process does, (k, n) for the k-th of n; the one that finds all done
            writes the result.
        report: Told how far it is.

    Returns:
        What was written, and what it cost.

    Raises:
        ImageError: The image or the mask cannot be read.
        ValueError: The budget does not pay for the coarse pass, or something does not fit.
        OSError: The result cannot be written.
    """
    need_path(out, "out")
    path = Path(out)
    write = find_sink(path)
    if not (isinstance(shard[0], int) and isinstance(shard[1], int) and 1 <= shard[0] <= shard[1]):
        raise ValueError(f"shard is {shard[0]}/{shard[1]}; give K/N with K from 1 to N")
    task = _task(model, source, path, budget, mask, window, confidence, value_range, bands, precision,
                 settings or {}, (shard[0] - 1, shard[1]), report)  # fmt: skip
    start = time.perf_counter()
    task.parts.make()
    restore(task.parts.folders(), (path, beside(path, CONFIDENCE)))
    run_coarse(task)
    if not all(task.parts.has(block_part(k)) for k in range(len(task.cut.blocks))):
        return unfinished(task, start)
    plan = make_plan(task)
    run_fine(task, plan)
    return write_result(task, plan, path, write, start)


def _task(  # noqa: PLR0913
    model: Any,
    given: Any,
    out: Path,
    budget: float,
    mask: Any,
    window: int,
    confidence: bool,
    value_range: tuple[float, float] | None,
    bands: tuple[int, ...],
    precision: str,
    settings: dict[str, object],
    shard: tuple[int, int],
    report: Report,
) -> Task:
    """Bring together what is computed."""
    engine = _engine(model, precision)
    if settings.get("schedule", SCHEDULE) != SCHEDULE:
        raise ValueError(
            f"schedule is {settings['schedule']}, and large images are refined in one step, after one plan; "
            "leave it out"
        )
    config = configure(
        engine.model, METHOD, budget, {**_known(model, budget), **settings, "schedule": SCHEDULE}
    )
    assert isinstance(config, CoarseToFineConfig), "is its config"
    if config.scale != 1:
        raise ValueError(
            f"the model sees best at scale {config.scale:g}, and large images are not shrunk; reduce the "
            "file itself, or give --scale 1"
        )
    source = open_source(given, bands)
    network = WindowNetwork(engine, config.tile, config.coarse_level, config.refinement.logit_blend)
    cut = Cut.of(source.size, config.tile, config.coarse_level, window, engine.multiple)
    reach = measure_reach(engine.model.network, engine.channels, cut.unit >> cut.level)
    wanted = open_mask(mask, source)
    asked = {
        "image": source.identity,
        "network": fingerprint(engine.model.network),
        "runs": engine.name,
        "scales": repr(engine.scales),
        "config": asdict(config),
        "mask": wanted.name,
        "window": cut.window,
        "values": (engine.channels, value_range, confidence),
    }
    if mask is None and cut.level > 0 and config.budget < 1:
        check_budget(
            config.budget, cut, torch.ones(cut.cells, dtype=torch.bool)
        )  # before anything is computed
    reading = ImageFormat(engine.channels, value_range)
    parts = Parts(out, asked)
    return Task(source, network, config, reading, wanted, cut, reach, parts, confidence, report, shard)


def _engine(model: Any, precision: str) -> Engine:
    """Return what runs a model.

    Raises:
        ValueError: It is no model, or has no such precision.
    """
    if isinstance(model, Engine):
        return model
    if isinstance(model, Model):
        return find_engine(model, precision)
    engine = getattr(model, "engine", None)
    if isinstance(engine, Engine):
        return engine
    raise ValueError(
        f"model is a {type(model).__name__}; give what foveal.load_model or foveal.adapt returns"
    )


def _known(model: Any, budget: float) -> dict[str, object]:
    """Return what an adaptive model knows of itself: tile and level, and what calibration found."""
    spec, profile = getattr(model, "spec", None), getattr(model, "profile", None)
    if spec is None or isinstance(model, Model):
        return {}
    known: dict[str, object] = {"tile": spec.tile, "coarse_level": spec.coarse_level, "scale": spec.scale}
    return known if profile is None else known | profile.settings(budget, spec.coarse_level)
