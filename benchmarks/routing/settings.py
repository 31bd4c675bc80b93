"""What gates of the paper's settings spend: fresh gates for each on a trained lattice that stays as it is.

    python benchmarks/routing/settings.py benchmarks/routing/settings.json 0.02 100
    python benchmarks/routing/settings.py benchmarks/routing/settings_fast.json 0.05 90

with a learning rate and a number of steps. Gates learn on CamVid train, two views of 96x96 px a step, and
decide alone on the first images of val.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from foveal.benchmark.machine import describe_machine
from foveal.data.augmentation import Augment
from foveal.data.batches import Batches
from foveal.data.dataset import open_dataset
from foveal.evaluation.evaluate import evaluate
from foveal.evaluation.tally import Entry
from foveal.hub.checkpoint import load_model
from foveal.methods import Aim, Dense, Routing, RoutingConfig
from foveal.methods.routing import RoutingTraining
from foveal.routes import expected_share, soft
from foveal.storage.atomic import write_atomically

MODEL = "benchmarks/trained/camvid_lattice8_0.safetensors"
SETTINGS = (("Dynamic-A", 0.8, 0.1), ("Dynamic-B", 0.5, 0.1), ("Dynamic-C", 0.5, 0.2), ("Raw", 0.0, 0.0))
VIEW, IMAGES = (96, 96), 12


def measured(name: str, weight: float, aim: float, rate: float, steps: int) -> dict[str, object]:
    network = load_model(MODEL).network.requires_grad_(False)
    keys = RoutingTraining(name="routing", budget_weight=weight, budget=aim)
    method = Routing.for_training(network, keys, Aim()).eval()
    method.router.train()
    batches = Batches(open_dataset("camvid:data/camvid", "train"), Augment(VIEW, (0.4, 1.0)), 2, 0)
    optimiser = torch.optim.Adam(method.router.parameters(), rate)
    for step in range(steps):
        optimiser.zero_grad()
        torch.stack(list(method.loss(*batches[step]).values())).sum().backward()
        optimiser.step()
    method.router.eval()
    with torch.no_grad():
        image = batches[steps][0]
        share = expected_share(method.costs(VIEW), soft(method.parts, method.router, image)[1])
    ready = Routing(network, RoutingConfig(1.0, threshold=0.0), method.router).eval()
    entry, data = Entry("routing", "", 1.0, lambda target: ready), open_dataset("camvid:data/camvid", "val")
    row = evaluate(Dense(network).eval(), data, [entry], 0, IMAGES)[1]
    found = {
        "setting": name,
        "budget_weight": weight,
        "budget": aim,
        "expected_share": round(float(share), 3),
    }
    return found | {
        key: getattr(row, key) for key in ("work", "work_max", "macs", "miou", "agreement", "images")
    }


def main() -> None:
    out, rate, steps = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    rows = []
    for each in SETTINGS:
        rows.append(measured(*each, rate, steps))
        print(rows[-1], flush=True)
    record = asdict(describe_machine()) | {
        "command": f"python benchmarks/routing/settings.py {out} {rate:g} {steps}",
        "model": MODEL,
        "learning_rate": rate,
        "steps": steps,
        "rows": rows,
    }
    write_atomically(out, json.dumps(record, indent=1) + "\n")


main()
