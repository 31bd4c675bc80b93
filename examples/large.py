"""A large image from disk to disk: makes a COG that is mostly empty, segments it with a mask and a budget.

    python examples/large.py                          # 1000 megapixels, in ./large
    python examples/large.py --megapixels 100 --dense # beside every window dense, in the same program

It needs `pip install foveal[geo]`. Photos are generated streets with exact labels, laid out on blank paper.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import pickle
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import rasterio
import torch
from PIL import Image
from rasterio.shutil import copy

import foveal
from foveal.benchmark.machine import describe_machine
from foveal.data.synthetic import street
from foveal.inference.large import LargeResult
from foveal.reporting.large_text import large_row, large_text
from foveal.storage.atomic import write_atomically
from foveal.storage.labels import VOID

PHOTO, PLACES, SCENES = (720, 960), 1024, 12
"""Height and width of a photo, side of the places where one may lie [px], and how many photos there are."""
PAPER = 236
BLOCK = 512
SHOWN = 1000
"""Longest side of the picture at the end [px]."""


def photos() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Draw the photos [n, h, w, 3] and their labels [n, h, w]."""
    drawn = [street(seed, PHOTO) for seed in range(SCENES)]
    images = [(image * 255).round().byte().permute(1, 2, 0).numpy() for image, _ in drawn]
    return np.stack(images), np.stack([labels.numpy().astype(np.uint8) for _, labels in drawn])


def write_sheet(folder: Path, side: int, share: float) -> None:
    """Write sheet.tif, a COG with overviews, and truth.tif, its labels, a row of places at a time."""
    images, labels = photos()
    draw, per = Random(0), PLACES
    places = [(y, x) for y in range(0, side, per) for x in range(0, side, per)]
    taken = set(draw.sample(places, round(share * len(places))))
    files = {}
    for name, count in (("sheet", 3), ("truth", 1)):
        profile = {"driver": "GTiff", "height": side, "width": side, "count": count, "dtype": "uint8"}
        profile |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate"}
        profile |= {"zlevel": 1, "bigtiff": "if_safer", "crs": "EPSG:32631"}
        profile |= {"transform": rasterio.transform.from_origin(500_000, 5_600_000, 0.1, 0.1)}
        files[name] = rasterio.open(folder / f"{name}.part.tif", "w", **profile)
    for top in range(0, side, per):
        height = min(per, side - top)
        row = np.full((per, side + per, 3), PAPER, np.uint8)
        truth = np.full((per, side + per), VOID, np.uint8)
        for left in range(0, side, per):
            if (top, left) in taken:
                k = draw.randrange(SCENES)
                y, x = draw.randrange(per - PHOTO[0]), left + draw.randrange(per - PHOTO[1])
                row[y : y + PHOTO[0], x : x + PHOTO[1]] = images[k]
                truth[y : y + PHOTO[0], x : x + PHOTO[1]] = labels[k]
        place = ((top, top + height), (0, side))
        files["sheet"].write(np.moveaxis(row[:height, :side], -1, 0), window=place)
        files["truth"].write(truth[:height, :side], 1, window=place)
    for name, file in files.items():
        file.close()
        part = folder / f"{name}.part.tif"
        resampling = "AVERAGE" if name == "sheet" else "NEAREST"
        copy(part, folder / f"{name}.tif", driver="COG", compress="DEFLATE", overview_resampling=resampling,
             bigtiff="IF_SAFER")  # fmt: skip
        part.unlink()


def segment(folder: Path, out: Path, options: dict[str, Any], send: Any) -> None:
    """Segment the sheet in a process of its own, whose memory is that of the run alone."""
    model = foveal.load_model("camvid_rn18")
    found = foveal.segment_large(model, folder / "sheet.tif", out, **options)
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = used.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    # As bytes: a tensor that is sent as itself lies in a memory that ends with this process.
    send.send_bytes(pickle.dumps((found, peak, used.ru_utime + used.ru_stime)))


def in_process(folder: Path, out: Path, **options: Any) -> tuple[LargeResult, float, float]:
    """Return what a run came to, and its peak of memory [MiB] and processor time [s]."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=segment, args=(folder, out, options, theirs))
    process.start()
    theirs.close()
    try:
        found: tuple[LargeResult, float, float] = pickle.loads(ours.recv_bytes())
    except EOFError:
        raise SystemExit("the run ended early") from None
    process.join()
    return found


def right(truth: Path, found: Path) -> tuple[float, float]:
    """Return the share of the labelled pixels that are right, and the mean IoU of the classes that occur."""
    counts = np.zeros((256, 256), np.int64)
    with rasterio.open(truth) as one, rasterio.open(found) as other:
        for top in range(0, one.height, BLOCK):
            place = ((top, min(one.height, top + BLOCK)), (0, one.width))
            a, b = (file.read(1, window=place).astype(np.int64) for file in (one, other))
            counts += np.bincount((a * 256 + b)[a != VOID], minlength=1 << 16).reshape(256, 256)
    hits = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - hits
    occurs = counts.sum(1) > 0
    return float(hits.sum() / counts.sum()), float((hits[occurs] / union[occurs]).mean())


def draw(folder: Path, out: Path, found: LargeResult) -> Path:
    """Draw the sheet, its labels, and where the computation went, beside one another."""
    height, width = found.size
    scale = SHOWN / max(height, width)
    sides = max(1, round(height * scale)), max(1, round(width * scale))
    with rasterio.open(folder / "sheet.tif") as file:
        image = np.moveaxis(file.read(out_shape=(3, *sides)), 0, -1)
    with rasterio.open(out) as file:
        colours = np.array([file.colormap(1)[k][:3] for k in range(256)], np.uint8)
        labels = colours[file.read(1, out_shape=sides)]
    assert found.plan is not None, "is there at the end"
    shades = torch.tensor([235, 120, 60, 30]).to(torch.uint8)
    levels = found.plan.levels(found.coarse_level)
    tones = torch.where(levels < 0, 0, shades[levels.clamp(min=0).long().clamp(max=3)]).numpy()
    plan = np.array(Image.fromarray(tones.astype(np.uint8)).resize(sides[::-1], Image.Resampling.BOX))
    sheet = np.concatenate([image, labels, np.repeat(plan[:, :, None], 3, 2)], 1)
    path = folder / "large.png"
    Image.fromarray(sheet).save(path)
    return path


def main() -> None:
    """Make the sheet if it is not there, segment it, and say what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=float, default=1000)
    parser.add_argument("--share", type=float, default=0.2, help="share of the places that hold a photo")
    parser.add_argument("--budget", type=float, default=0.3)
    parser.add_argument("--mask", default="auto", help="auto, none, or what foveal large takes")
    parser.add_argument("--window", type=int, default=2048)
    parser.add_argument("--dense", action="store_true", help="also every window dense, without a mask")
    parser.add_argument("--folder", type=Path, default=Path("large"))
    parser.add_argument("--json", type=Path, help="file for the figures")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    side = max(PLACES, round(math.sqrt(asked.megapixels * 1e6)))
    sheet = asked.folder / "sheet.tif"
    if not sheet.exists():
        start = time.perf_counter()
        write_sheet(asked.folder, side, asked.share)
        print(f"made {sheet}, {side}x{side} px, in {time.perf_counter() - start:.0f} s")
    mask = None if asked.mask == "none" else asked.mask
    runs: dict[str, dict[str, Any]] = {"adaptive": {"budget": asked.budget, "mask": mask}}
    if asked.dense:
        runs["dense"] = {"budget": 1.0}
    rows = {}
    for name, options in runs.items():
        out = asked.folder / f"{name}.tif"
        found, peak, seconds = in_process(asked.folder, out, window=asked.window, **options)
        share, miou = right(asked.folder / "truth.tif", out)
        figures = {"peak_mib": round(peak), "processor_s": round(seconds, 1), "right": share, "miou": miou}
        rows[name] = asdict(large_row(sheet, found)) | figures
        print(f"{name}\n{large_text(sheet, found)}")
        print(f"  memory   {peak:.0f} MiB at most; {seconds:.0f} s of processors")
        print(f"  right    {share:.2%} of the photos' pixels, mIoU {miou:.3f}")
        if name == "adaptive":
            print(f"  picture  {draw(asked.folder, out, found)}")
    if asked.json:
        state = asdict(describe_machine(["rasterio"])) | {"rows": rows}
        write_atomically(asked.json, json.dumps(state, indent=1, default=str))


if __name__ == "__main__":
    main()
