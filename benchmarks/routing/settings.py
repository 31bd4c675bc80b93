"""What gates of the paper's settings spend: a lattice, gates anew on it for a few steps of every setting.

    python benchmarks/routing/settings.py benchmarks/routing/settings.json

Runs `runs/lattice8_a`, `_b`, `_c` and `_raw` are made by

    foveal train recipes/routing/camvid_lattice8.toml --run runs/lattice8_a \\
        --set model.start=benchmarks/trained/camvid_lattice8_0.safetensors --set method.budget_weight=0.8 \\
        --set method.budget=0.1 --set method.budget_from=0.0 --set train.policy_factor=10.0 \\
        --set train.steps=120 --set train.learning_rate=1e-3

and so on, with the weight and the aim of every setting; they are measured on the first images of CamVid val.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from foveal.benchmark.machine import describe_machine
from foveal.calibration.engine import find_engine
from foveal.data.dataset import open_dataset
from foveal.evaluation.evaluate import evaluate
from foveal.evaluation.tally import Entry
from foveal.hub.checkpoint import load_model
from foveal.methods import RoutingConfig
from foveal.storage.atomic import write_atomically

SETTINGS = (
    ("Dynamic-A", "a", 0.8, 0.1),
    ("Dynamic-B", "b", 0.5, 0.1),
    ("Dynamic-C", "c", 0.5, 0.2),
    ("Raw", "raw", 0.0, 0.0),
)
IMAGES = 40


def measured(name: str, run: str, weight: float, aim: float) -> dict[str, object]:
    model = load_model(f"runs/lattice8_{run}")
    engine = find_engine(model)
    method = engine.make("routing", RoutingConfig(1.0, threshold=0.0), model.resources)
    entry = Entry("routing", "", 1.0, lambda target: method)
    dense, row = evaluate(engine.dense(), open_dataset("camvid:data/camvid", "val"), [entry], 0, IMAGES)
    found = {"setting": name, "budget_weight": weight, "budget": aim, "dense_miou": dense.miou}
    return found | {
        key: getattr(row, key) for key in ("work", "work_max", "macs", "miou", "agreement", "images")
    }


def main() -> None:
    out = Path(sys.argv[1])
    record = asdict(describe_machine()) | {
        "command": f"python benchmarks/routing/settings.py {out}",
        "rows": [measured(*each) for each in SETTINGS],
    }
    write_atomically(out, json.dumps(record, indent=1) + "\n")
    for row in record["rows"]:
        print(row)


main()
