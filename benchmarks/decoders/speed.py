"""Milliseconds of dynamic decoders as programs, beside the same network dense and shrunk.

    python benchmarks/decoders/speed.py benchmarks/decoders/speed.json

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

KINDS = ("nrd", "points", "points_s8")
MODELS = {kind: f"benchmarks/trained/camvid_rn18_{kind}_0.safetensors" for kind in KINDS}
ROUNDS, SCALE = 15, 0.88
"""Rounds, and the sides of the shrunk image, whose work is that of a decoder at 0.775."""
ROWS = (
    ("nrd", 0.72),
    ("nrd", 0.9),
    ("points", 0.72),
    ("points", 0.8),
    ("points_s8", 0.78),
    ("points_s8", 0.8),
    ("points_s8", 0.85),
)
"""Decoder and budget of every row; at 0.9 all patches are refined, at 0.85 all points after stride 8."""


def labels(method: AdaptiveSegmenter, image: torch.Tensor) -> torch.Tensor:
    return method(image).labels


def main() -> None:
    keep_memory()
    models = {kind: load_model(path) for kind, path in MODELS.items()}
    engines = {kind: find_engine(model) for kind, model in models.items()}
    image = open_dataset("camvid:data/camvid", "full_test")[3][0][None]
    image = image.contiguous(memory_format=torch.channels_last)
    first = next(iter(engines.values()))
    shrunk = METHODS["dense"].Config(scale=SCALE)
    made = [Dense(first.network).eval(), first.dense(), first.make("dense", shrunk)]
    for kind, budget in ROWS:
        config = METHODS["dynamic_decoder"].Config(budget)
        made.append(engines[kind].make("dynamic_decoder", config, models[kind].resources))
    with tuning(), torch.inference_mode():
        works = [float(method(image).trace.work[0]) for method in made]
    times = alternate({str(k): partial(labels, each, image) for k, each in enumerate(made)}, ROUNDS, 2)
    asked = [
        ("dense, layer by layer", 1.0),
        ("dense, program", 1.0),
        (f"dense, sides times {SCALE}", 1.0),
        *ROWS,
    ]
    rows = [
        {
            "method": method,
            "budget": budget,
            "work": round(work, 4),
            "ms": round(times[str(k)].median, 2),
            "p95_ms": round(times[str(k)].p95, 2),
            "times_faster": round(times["0"].median / times[str(k)].median, 2),
        }
        for k, ((method, budget), work) in enumerate(zip(asked, works, strict=True))
    ]
    out = Path(sys.argv[1])
    record = asdict(describe_machine()) | {
        "command": f"python benchmarks/decoders/speed.py benchmarks/decoders/{out.name}",
        "models": MODELS,
        "rows": rows,
    }
    write_atomically(out, json.dumps(record, indent=1) + "\n")
    for row in rows:
        print(row["method"], row["budget"], row["work"], row["ms"], row["times_faster"])


main()
