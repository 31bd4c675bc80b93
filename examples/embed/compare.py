"""Compare the example in C with Python: python compare.py FOLDER, the one that holds `segment`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

import foveal
from foveal.runtime import Program, load_program

THREADS = 2
"""In C and in Python: which algorithm a layer takes depends on it."""
BUDGETS = (1.0, 0.3)


def write_ppm(image: np.ndarray, path: Path) -> None:
    """Write bytes [H, W, 3] as a binary PPM."""
    height, width, _ = image.shape
    path.write_bytes(b"P6\n%d %d\n255\n" % (width, height) + image.tobytes())


def read_pgm(path: Path) -> np.ndarray:
    """Read labels [H, W] that `segment` wrote."""
    kind, size, most, pixels = path.read_bytes().split(b"\n", 3)
    width, height = (int(word) for word in size.split())
    assert (kind, most) == (b"P5", b"255")
    return np.frombuffer(pixels, np.uint8).reshape(height, width)


def differences(folder: Path, program: Program, file: Path, image: np.ndarray) -> list[int]:
    """Count pixels that C labels otherwise than Python, for every budget.

    Args:
        folder: Where `segment` is, and its files go.
        program: The program that `file` holds.
        file: A program file.
        image: Bytes [H, W, 3].
    """
    write_ppm(image, folder / "image.ppm")
    counts = []
    for budget in BUDGETS:
        words = (file, folder / "image.ppm", folder / "labels.pgm", budget, 0, THREADS)
        subprocess.run([folder / "segment", *map(str, words)], check=True)
        run = program.info.run
        settings = run.dense() if budget == 1 else run.coarse_to_fine(budget)
        expected = program.run(image[None], settings, threads=THREADS).labels[0]
        counts.append(int((read_pgm(folder / "labels.pgm") != expected).sum()))
    return counts


def main() -> None:
    """Segment a generated street with the bundled model."""
    folder = Path(sys.argv[1])
    file = folder / "camvid_rn18.foveal"
    foveal.export_program(foveal.load_model("camvid_rn18"), file)
    image = (foveal.street(seed=24)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    counts = differences(folder, load_program(file), file, np.ascontiguousarray(image))
    for budget, count in zip(BUDGETS, counts, strict=True):
        print(f"budget {budget:g}: {count} of {image.shape[0] * image.shape[1]} pixels differ from Python")
    if any(counts):
        sys.exit("C and Python give different labels")


if __name__ == "__main__":
    main()
