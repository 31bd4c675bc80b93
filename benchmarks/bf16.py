"""Compare fp32 with bf16, dense and adaptive: python benchmarks/bf16.py camvid_rn18 720x960 32."""

from __future__ import annotations

import copy
import json
import os
import sys
from dataclasses import asdict

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch

from foveal.adaptive.opening import open_model
from foveal.benchmark.machine import describe_machine
from foveal.benchmark.runtimes import fold_norms
from foveal.cost import alternate, keep_memory
from foveal.data.synthetic import street
from foveal.fusion import fuse
from foveal.methods import SegBlocks
from foveal.ops import classify, tuning
from foveal.policies import create_policy


def main() -> None:
    name, size, tile = sys.argv[1], tuple(int(side) for side in sys.argv[2].split("x")), int(sys.argv[3])
    keep_memory()
    network = open_model(name, untrained=True).network.eval()
    image = street(24, size)[0][None].to(memory_format=torch.channels_last)
    half = image.bfloat16()
    single, double = fuse(network), fuse(copy.deepcopy(network).bfloat16())
    eager = fold_norms(network).bfloat16().to(memory_format=torch.channels_last)
    adaptive = [SegBlocks(n, create_policy("entropy", 0.4, tile, 2, 2)).eval() for n in (single, double)]
    runs = {
        "dense fp32, own kernels": lambda: classify(single(image), size),
        "dense bf16, eager PyTorch": lambda: classify(eager(half).float(), size),
        "budget 0.4 fp32, own kernels": lambda: adaptive[0](image).labels,
        "budget 0.4 bf16, PyTorch kernels": lambda: adaptive[1](half).labels,
    }
    with torch.inference_mode(), tuning():
        labels = {key: run() for key, run in runs.items()}
    times = alternate(runs, 15)
    first = labels["dense fp32, own kernels"]
    rows = [
        {
            "run": key,
            "ms": round(time.median, 1),
            "p95": round(time.p95, 1),
            "agreement": round(float((labels[key] == first).double().mean()), 4),
        }
        for key, time in times.items()
    ]
    print(json.dumps(asdict(describe_machine()) | {"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
