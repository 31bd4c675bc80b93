"""Milliseconds of methods beside their network dense, layer by layer and as a program.

    python benchmarks/method_speed.py exits|routing|decoders

One image of CamVid at 960x720, from the image in 0..1 to its labels, all rows in turns in one process, on a
quiet machine, with the dense network in OpenVINO where that is installed and takes it. Writes speed.json into
the folder of that name. What runs as a program does so; a row pays for its gates, heads and decisions.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal.benchmark.machine import describe_machine
from foveal.benchmark.rival import openvino_rival
from foveal.calibration.engine import find_engine
from foveal.cost import alternate, keep_memory
from foveal.data.dataset import open_dataset
from foveal.hub.checkpoint import load_model
from foveal.methods import METHODS, AdaptiveSegmenter, Dense
from foveal.ops import tuning
from foveal.storage.atomic import write_atomically
from foveal.storage.names import find

HERE, ROUNDS = Path(__file__).parent, 15


@dataclass(frozen=True)
class Row:
    """A method at a setting, on a model of `benchmarks/trained`."""

    model: str
    method: str
    budget: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)


EXITS, LATTICE = "camvid_rn18_mess_0", "camvid_lattice8_0"
GROUPS: dict[str, Sequence[Row]] = {
    "exits": (
        *(Row(EXITS, "mess", budget) for budget in (0.52, 0.71)),
        Row(EXITS, "layer_cascade", 0.5, {"exits": "2", "settled": "vanish"}),
        Row(EXITS, "layer_cascade", 0.6, {"exits": "3", "settled": "vanish"}),
        Row(EXITS, "layer_cascade", 0.75, {"exits": "3", "settled": "vanish"}),
        Row(EXITS, "layer_cascade", 0.75, {"exits": "3", "settled": "coarse"}),
    ),
    "routing": (
        *(Row(LATTICE, "routing", b, {"route": r}) for b in (0.3, 0.5, 0.7) for r in ("gates", "usual")),
        *(Row(LATTICE, "routing", 1.0, {"route": route}) for route in ("fcn32s", "unet", "hrnetv2")),
        Row(LATTICE, "coarse_to_fine", 0.5),
    ),
    "decoders": (
        Row("camvid_rn18_nrd_0", "dense", 1.0, {"scale": 0.88}),  # whose work is that of decoders at .775
        *(Row("camvid_rn18_nrd_0", "dynamic_decoder", budget) for budget in (0.72, 0.9)),
        *(Row("camvid_rn18_points_0", "dynamic_decoder", budget) for budget in (0.72, 0.8)),
        *(Row("camvid_rn18_points_s8_0", "dynamic_decoder", budget) for budget in (0.78, 0.8, 0.85)),
    ),
}
"""Rows by the folder that they are written to."""


def labels(method: AdaptiveSegmenter, image: Tensor) -> Tensor:
    return method(image).labels


def main() -> None:
    keep_memory()
    group = sys.argv[1] if len(sys.argv) > 1 else ""
    asked = find(group, GROUPS, "group of rows")
    models = {row.model: load_model(HERE / "trained" / f"{row.model}.safetensors") for row in asked}
    engines = {name: find_engine(model) for name, model in models.items()}
    image = open_dataset("camvid:data/camvid", "full_test")[3][0][None]
    image = image.contiguous(memory_format=torch.channels_last)
    first = asked[0].model
    made: list[AdaptiveSegmenter] = [Dense(engines[first].network).eval(), engines[first].dense()]
    for row in asked:
        config = METHODS[row.method].Config(row.budget, **row.settings)
        made.append(engines[row.model].make(row.method, config, models[row.model].resources))
    with tuning(), torch.inference_mode():
        works = [float(method(image).trace.work[0]) for method in made]
    runs = {str(k): partial(labels, each, image) for k, each in enumerate(made)}
    with tempfile.TemporaryDirectory() as folder:
        static, why_not = openvino_rival(models[first].network, image.contiguous(), Path(folder))
        if static is not None:
            runs["static"] = partial(static.run, static.lay(image))
        times = alternate(runs, ROUNDS, 2)
    print(why_not or f"dense in OpenVINO: {times['static'].median:.1f} ms")
    named = [Row(first, "dense, layer by layer"), Row(first, "dense, program"), *asked]
    rows = [
        asdict(row)
        | {
            "work": round(work, 4),
            "ms": round(times[str(k)].median, 2),
            "p95_ms": round(times[str(k)].p95, 2),
            "times_faster": round(times["0"].median / times[str(k)].median, 2),
            "times_faster_than_program": round(times["1"].median / times[str(k)].median, 2),
            "times_faster_than_openvino": static and round(times["static"].median / times[str(k)].median, 2),
        }
        for k, (row, work) in enumerate(zip(named, works, strict=True))
    ]
    record = asdict(describe_machine()) | {
        "command": f"python benchmarks/method_speed.py {group}",
        "openvino_ms": static and round(times["static"].median, 2),
        "no_openvino": why_not,
        "rows": rows,
    }
    write_atomically(HERE / group / "speed.json", json.dumps(record, indent=1) + "\n")
    for row in rows:
        print(*row.values())


main()
