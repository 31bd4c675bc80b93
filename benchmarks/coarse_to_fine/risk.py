"""How well risks are kept: random splits of the images of a fit into calibration and test.

foveal adapt MODEL --images camvid:data/camvid --split test --coarse-level 1 --out FOLDER
python benchmarks/coarse_to_fine/risk.py OUT.json FOLDER/model.fit.json NAME
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from foveal.benchmark.machine import describe_machine
from foveal.calibration.risk import RiskTable, coverage

RISKS = (0.005, 0.01, 0.02, 0.05)


def main() -> None:
    out, file, name = sys.argv[1:]
    table = RiskTable.from_dict(json.loads(Path(file).read_text())["risk"])
    losses, works = (torch.tensor(x, dtype=torch.float64) for x in (table.losses, table.works))
    rows = [{"model": name, **asdict(row)} for row in coverage(losses, works, RISKS, splits=100)]
    mean = [
        {"threshold": t, "work": round(w, 4), "disagreement": round(x, 5)}
        for t, w, x in zip(table.thresholds, table.works, losses.mean(0).tolist(), strict=True)
    ]
    record = asdict(describe_machine()) | {
        "command": " && ".join(line.strip() for line in (__doc__ or "").splitlines()[2:4]),
        "rows": rows,
        "mean": mean,
    }
    Path(out).write_text(json.dumps(record, indent=1) + "\n")
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
