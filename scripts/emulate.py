"""Run programs on processors that this machine does not have, and compare their labels with its own.

    make emulate              # 64-bit ARM: needs Debian's gcc-aarch64-linux-gnu and qemu-user

The library and the example in C (`examples/embed`) are cross-compiled; programs in f32, bfloat16 and 8 bits
segment one picture, densely and coarse to fine, with NEON's dot product, without it, and in plain C. Times of
an emulated processor mean nothing, and none is taken.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import foveal
from foveal.calibration.export import export_program
from foveal.runtime import load_program

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples/embed"
COMPILER, EMULATOR, SYSTEM = "aarch64-linux-gnu-gcc", "qemu-aarch64", "/usr/aarch64-linux-gnu"
PROCESSORS = {
    "NEON with dot product": ("max", {}),
    "NEON without": ("cortex-a53", {}),
    "plain C": ("max", {"FOVEAL_INSTRUCTIONS": "plain"}),
}
"""Model of a processor, and what the environment asks for."""
DIFFERS = {"f32": 0.0, "bf16": 0.001, "int8": 0.0}
"""Share of the labels that may differ: sums of bfloat16 products are rounded in another order."""
BUDGETS = (1.0, 0.4)
SIZE = (200, 296)
THREADS = 2

sys.path.insert(0, str(EXAMPLE))
from compare import read_pgm, write_ppm  # noqa: E402


def main() -> int:
    missing = [tool for tool in (COMPILER, EMULATOR) if not shutil.which(tool)]
    if missing:
        print(f"there is no {' and no '.join(missing)}; apt-get install gcc-aarch64-linux-gnu qemu-user")
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        words = [f"BUILD={folder}", f"CC={COMPILER}", "ARCH=-march=armv8-a", f"PYTHON={sys.executable}"]
        subprocess.run(["make", "-s", "-j2", "-C", EXAMPLE, *words], check=True)
        wrong = 0
        for precision in DIFFERS:
            wrong += compare(folder, precision)
    return int(wrong > 0)


def compare(folder: Path, precision: str) -> int:
    """Segment one picture in a precision on every processor; return how many runs differ too much."""
    model, file = foveal.load_model("camvid_rn18"), folder / f"{precision}.foveal"
    street = foveal.street(seed=24)[0][:, : SIZE[0], : SIZE[1]]
    image = np.ascontiguousarray((street.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    export_program(model, file, precision, [torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255])
    write_ppm(image, folder / "image.ppm")
    program, wrong = load_program(file), 0
    assert program.info is not None
    run = program.info.run
    for budget in BUDGETS:
        settings = run.dense() if budget == 1 else run.coarse_to_fine(budget)
        expected = program.run(image[None], settings, threads=THREADS).labels[0]
        for name, (processor, environment) in PROCESSORS.items():
            found = emulate(
                folder, [file.name, "image.ppm", "labels.pgm", budget, 0, THREADS], processor, environment
            )
            count = int((found != expected).sum())
            wrong += count > DIFFERS[precision] * expected.size
            print(
                f"{precision}, budget {budget:g}, {name}: {count} of {expected.size} pixels differ",
                flush=True,
            )
    return wrong


def emulate(folder: Path, words: list[object], processor: str, environment: dict[str, str]) -> np.ndarray:
    """Run the example on an emulated processor; return its labels [H, W]."""
    told = [part for name, value in environment.items() for part in ("-E", f"{name}={value}")]
    command = [EMULATOR, "-cpu", processor, "-L", SYSTEM, "-E", f"LD_LIBRARY_PATH={folder}", *told, "segment"]
    subprocess.run([*command, *map(str, words)], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return read_pgm(folder / "labels.pgm")


if __name__ == "__main__":
    sys.exit(main())
