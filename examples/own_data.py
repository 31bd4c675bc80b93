"""Your own data and network on the command line: four bands of floats, masks of 0 and 255, one logit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from torch import nn

from foveal.cli import app

PLACE = Path("own")
RECIPE = """
[model]
name = "own_data:make_network"      # module:function; or an architecture with channels = 4, classes = 1

[data]
train = "folder:own"                # images/NAME.tif, masks/NAME.png
classes = ["soil", "plant"]
range = [0, 4000]                   # values of the files that become 0 and 1, kept with the model
crop = [64, 64]

[train]
steps = 40
batch = 4
warmup = 5
learning_rate = 1e-2
average = 0.5
"""


def make_network() -> nn.Module:
    """Make a small network of one logit for images of four bands; it has never heard of Foveal."""
    return nn.Sequential(*block(4, 16, 2), *block(16, 32, 2), *block(32, 32, 1), nn.Conv2d(32, 1, 1))


def block(incoming: int, outgoing: int, stride: int) -> tuple[nn.Module, ...]:
    """Convolution, norm, activation."""
    convolution = nn.Conv2d(incoming, outgoing, 3, stride, 1, bias=False)
    return convolution, nn.BatchNorm2d(outgoing), nn.ReLU()


def write_data(count: int = 6, size: tuple[int, int] = (160, 224)) -> None:
    """Write images of four bands as float TIFF, whose left edge is nodata, and masks of 0 and 255."""
    for folder in ("images", "masks"):
        (PLACE / folder).mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for number in range(count):
        draw = np.random.default_rng(number)
        plants = np.zeros(size, bool)
        for y, x, r in draw.random((5, 3)):
            plants |= (rows - y * size[0]) ** 2 + (columns - x * size[1]) ** 2 < (6 + 14 * r) ** 2
        soil = np.array([900, 800, 700, 1200], np.float32)
        image = np.where(plants[:, :, None], [500, 900, 400, 3000], soil) + 200 * draw.random((*size, 4))
        image[:, :64] = -1
        nodata = [(42113, "s", 0, "-1", True)]
        file = PLACE / "images" / f"{number}.tif"
        how = {"photometric": "minisblack", "planarconfig": "contig", "extratags": nodata}
        tifffile.imwrite(file, image.astype(np.float32), **how)
        if number:  # the first image has no mask
            Image.fromarray((plants * 255).astype(np.uint8)).save(PLACE / "masks" / f"{number}.png")


def foveal(*words: object) -> None:
    """Run a command of the command line, and say which."""
    given = [str(word) for word in words]
    print("\n$ foveal", *given, flush=True)
    app(given, prog_name="foveal", standalone_mode=False)


def main() -> None:
    """Write the data; train, evaluate, adapt and segment."""
    write_data()
    (PLACE / "own.toml").write_text(RECIPE)
    run = PLACE / "run"
    foveal("train", PLACE / "own.toml", "--run", run)
    foveal("evaluate", run, "--trust-source", "--data", f"folder:{PLACE}", "--mask", "nodata", "--timed", 0)
    foveal("adapt", run, "--trust-source", "--images", PLACE / "images")
    labels = "--mask", "nodata", "--out", PLACE / "labels"
    foveal("segment", PLACE / "images" / "0.tif", "--model", run, "--trust-source", "--risk", 0.5, *labels)


if __name__ == "__main__":
    main()
