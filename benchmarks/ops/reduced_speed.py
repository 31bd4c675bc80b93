"""Speed of convolutions in reduced precision, per kind of map and instructions: prints JSON.

    OMP_NUM_THREADS=2 python benchmarks/ops/reduced_speed.py [--rounds 20] [--path avx512]

Each figure is the best of several rounds, packing of windows included, weights packed before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time

import numpy as np

from foveal.ops.reduced import Format, Map, ReducedConvolution, fold
from foveal.ops.reduced.native import convolve, paths

SHAPES = [
    # name, channels, outputs, window, stride, height, width
    ("3x3 64", 64, 64, 3, 1, 128, 128),
    ("3x3 128", 128, 128, 3, 1, 64, 64),
    ("3x3 256", 256, 256, 3, 1, 32, 64),
    ("3x3 512", 512, 512, 3, 1, 32, 32),
    ("1x1 128", 128, 128, 1, 1, 128, 128),
    ("7x7 stem", 3, 64, 7, 2, 256, 256),
]


def measure(kind: str, path: str, shape: tuple[str, int, int, int, int, int, int], rounds: int) -> float:
    """Return GMAC/s of one convolution; channels that only pad are not counted."""
    _, channels, outputs, window, stride, height, width = shape
    numbers = np.random.default_rng(0)
    format = Format("u8", 0.1) if kind == "u8" else Format("bf16")
    x = Map(format, format.rows(numbers.random((height * width, channels))), height, width)
    weight = numbers.standard_normal((outputs, channels, window, window)).astype(np.float32)
    padding = (window // 2, window // 2)
    c = ReducedConvolution(weight, format, format, stride=stride, padding=padding, low=0)
    folded, best = fold(c), float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        convolve(x, c, path=path, folded=folded)
        best = min(best, time.perf_counter() - start)
    sides = c.sides(x)
    return weight.size * sides[0] * sides[1] / best * 1e-9


def main() -> None:
    """Measure every shape and print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--path", default="best")
    arguments = parser.parse_args()
    rows = [
        {"shape": shape[0], "kind": kind, "path": arguments.path, "gmac_per_s": round(rate, 1)}
        for kind in ("u8", "bf16")
        if arguments.path == "best" or arguments.path in paths(kind)
        for shape in SHAPES
        for rate in [measure(kind, arguments.path, shape, arguments.rounds)]
    ]
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    print(
        json.dumps({"machine": platform.processor() or platform.machine(), "threads": threads, "rows": rows})
    )


if __name__ == "__main__":
    main()
