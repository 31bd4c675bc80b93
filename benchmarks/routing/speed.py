"""Milliseconds of routes through a lattice, beside the same lattice dense, layer by layer and as a program.

    python benchmarks/routing/speed.py MODEL benchmarks/routing/speed.json

One image of CamVid at 960x720, from the image in 0..1 to its labels, all rows in turns in one process, on a
quiet machine. Rows with gates pay for them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from foveal.benchmark.machine import describe_machine
from foveal.calibration.engine import find_engine
from foveal.cost import alternate, keep_memory
from foveal.data.dataset import open_dataset
from foveal.hub.checkpoint import load_model
from foveal.methods import METHODS, AdaptiveSegmenter, Dense
from foveal.ops import tuning
from foveal.storage.atomic import write_atomically

ROUNDS = 15
ROWS = (
    *(("routing", budget, {"route": route}) for budget in (0.3, 0.5, 0.7) for route in ("gates", "usual")),
    *(("routing", 1.0, {"route": name}) for name in ("fcn32s", "unet", "hrnetv2")),
    ("coarse_to_fine", 0.5, {}),
)
"""Method, budget and settings of every row."""


def labels(method: AdaptiveSegmenter, image: torch.Tensor) -> torch.Tensor:
    return method(image).labels


def main() -> None:
    keep_memory()
    file, out = sys.argv[1], Path(sys.argv[2])
    model = load_model(file)
    engine = find_engine(model)
    image = open_dataset("camvid:data/camvid", "full_test")[3][0][None]
    image = image.contiguous(memory_format=torch.channels_last)
    made = [Dense(engine.network).eval(), engine.dense()]
    for method, budget, settings in ROWS:
        made.append(engine.make(method, METHODS[method].Config(budget, **settings), model.resources))  # type: ignore[arg-type]
    with tuning(), torch.inference_mode():
        works = [float(method(image).trace.work[0]) for method in made]
    times = alternate({str(k): partial(labels, each, image) for k, each in enumerate(made)}, ROUNDS, 2)
    asked = [("dense, layer by layer", 1.0, {}), ("dense, program", 1.0, {}), *ROWS]
    rows = [
        {
            "method": method,
            "budget": budget,
            "settings": settings,
            "work": round(work, 4),
            "ms": round(times[str(k)].median, 2),
            "p95_ms": round(times[str(k)].p95, 2),
            "times_faster": round(times["0"].median / times[str(k)].median, 2),
            "times_faster_than_program": round(times["1"].median / times[str(k)].median, 2),
        }
        for k, ((method, budget, settings), work) in enumerate(zip(asked, works, strict=True))
    ]
    record = asdict(describe_machine()) | {
        "command": f"python benchmarks/routing/speed.py {file} benchmarks/routing/{out.name}",
        "model": file,
        "rows": rows,
    }
    write_atomically(out, json.dumps(record, indent=1) + "\n")
    for row in rows:
        print(row["method"], row["budget"], row["settings"], row["work"], row["ms"], row["times_faster"])


main()
