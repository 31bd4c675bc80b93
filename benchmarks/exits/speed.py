"""Milliseconds of methods that leave a network early, beside the same network dense, layer by layer.

    python benchmarks/exits/speed.py benchmarks/exits/speed.json

One image of CamVid at 960x720, from the image in 0..1 to its labels, all rows in turns in one process.
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

MODEL, ROUNDS = "benchmarks/trained/camvid_rn18_mess_0.safetensors", 15
ROWS = (
    ("mess", 0.52, {}),
    ("mess", 0.71, {}),
    ("layer_cascade", 0.5, {"exits": "2", "settled": "vanish"}),
    ("layer_cascade", 0.6, {"exits": "3", "settled": "vanish"}),
    ("layer_cascade", 0.75, {"exits": "3", "settled": "vanish"}),
    ("layer_cascade", 0.75, {"exits": "3", "settled": "coarse"}),
)
"""Method, budget and settings of every row."""


def labels(method: AdaptiveSegmenter, image: torch.Tensor) -> torch.Tensor:
    return method(image).labels


def main() -> None:
    keep_memory()
    model = load_model(MODEL)
    engine = find_engine(model)
    image = open_dataset("camvid:data/camvid", "full_test")[3][0][None]
    image = image.contiguous(memory_format=torch.channels_last)
    made = [Dense(engine.network).eval(), engine.dense()]
    for method, budget, settings in ROWS:
        made.append(engine.make(method, METHODS[method].Config(budget, **settings), model.resources))
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
        }
        for k, ((method, budget, settings), work) in enumerate(zip(asked, works, strict=True))
    ]
    out = Path(sys.argv[1])
    record = asdict(describe_machine()) | {
        "command": f"python benchmarks/exits/speed.py benchmarks/exits/{out.name}",
        "model": MODEL,
        "rows": rows,
    }
    write_atomically(out, json.dumps(record, indent=1) + "\n")
    for row in rows:
        print(row["method"], row["budget"], row["settings"], row["work"], row["ms"], row["times_faster"])


main()
