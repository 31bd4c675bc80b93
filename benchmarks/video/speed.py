"""Frames of a video in the program: reuse beside every frame dense, in turns.

    python benchmarks/video/speed.py benchmarks/video/speed.json             # everything; minutes
    python benchmarks/video/speed.py speed.json --frames 8 --precision f32   # whether it works

Every frame is segmented by both, one after the other, the first of the two in turns, and by OpenVINO where
it is there; a time is from the frame, a tensor in 0..1, to its labels, decision included. Static cameras are
made of photos of the test split, one of them noisy; a still video is one frame again and again; the driving
clip is as it was filmed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, median

import torch
from torch import Tensor

import foveal
from foveal.benchmark.contenders import Labeller
from foveal.benchmark.machine import describe_machine
from foveal.benchmark.rival import Rival, openvino_rival
from foveal.calibration.configure import configure
from foveal.calibration.engine import PRECISIONS, Engine, find_engine, int8_scales
from foveal.cost import Timing, keep_memory
from foveal.cost.timing import settle
from foveal.data.dataset import open_dataset
from foveal.data.static_camera import static_camera
from foveal.evaluation.metrics import Confusion
from foveal.evaluation.video import Clip, Flicker
from foveal.methods import AdaptiveSegmenter, Prediction
from foveal.storage.atomic import write_atomically
from foveal.tiles.memory import Memory

MODEL, METHOD = "camvid_rn18", "video_coarse_to_fine"
CALIBRATED = 12
"""Training images that 8-bit ranges are taken from."""
NOISE = 0.01
"""Deviation of the noise of every pixel of the second static camera [0..1]."""


@dataclass(frozen=True)
class Video:
    """A video to measure.

    Attributes:
        name: What reports call it.
        clip: Its frames.
        budget: Share of the dense work of every frame.
    """

    name: str
    clip: Clip
    budget: float


@dataclass(frozen=True)
class Still:
    """One frame again and again."""

    clip: Clip
    frames: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.clip.classes

    def __len__(self) -> int:
        return self.frames

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.clip[0]


@dataclass
class Side:
    """One of the two that are compared, and what is measured of it."""

    method: AdaptiveSegmenter
    confusion: Confusion
    flicker: Flicker = field(default_factory=Flicker)
    memory: Memory | None = None
    ms: list[float] = field(default_factory=list)
    works: list[float] = field(default_factory=list)
    labels: Tensor = field(default_factory=lambda: torch.zeros(0))

    @torch.inference_mode()
    def run(self, image: Tensor) -> None:
        """Segment the next frame, timed."""
        settle()
        start = time.perf_counter()
        found: Prediction = self.method(image, self.memory)
        labels = found.labels
        self.ms.append(1000 * (time.perf_counter() - start))
        self.memory, self.labels = found.memory, labels
        self.works.append(float(found.trace.work[0]))

    def judge(self, target: Tensor) -> None:
        """Compare the last labels with the true ones."""
        self.confusion.add(self.labels, target)
        self.flicker.add(self.labels, target)

    def row(self) -> dict[str, object]:
        """Return what was measured; times and work of the frames after the first one."""
        times, flicker = Timing(tuple(self.ms[1:])), self.flicker.share
        return {
            "first_ms": round(self.ms[0], 2),
            "ms": round(times.median, 2),
            "p95_ms": round(times.p95, 2),
            "work": round(fmean(self.works[1:]), 4),
            "work_max": round(max(self.works[1:]), 4),
            "miou": round(self.confusion.miou, 4),
            "flicker": None if flicker != flicker else round(flicker, 5),
            "memory_bytes": getattr(self.memory, "bytes", 0),
        }


@dataclass
class Static:
    """The dense network in OpenVINO, every frame."""

    labeller: Labeller
    ms: list[float] = field(default_factory=list)

    def run(self, image: Tensor) -> None:
        """Segment the next frame, timed."""
        laid = self.labeller.lay(image)
        settle()
        start = time.perf_counter()
        self.labeller.run(laid)
        self.ms.append(1000 * (time.perf_counter() - start))

    def row(self) -> dict[str, object]:
        """Return what was measured, of the frames after the first one."""
        times = Timing(tuple(self.ms[1:]))
        return {"runtime": "openvino", "ms": round(times.median, 2), "p95_ms": round(times.p95, 2)}


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return an image [1, 3, H, W] at a size [px]."""
    return torch.nn.functional.interpolate(image, size, mode="bilinear", antialias=True)


def videos(sizes: list[str], frames: int) -> Iterator[Video]:
    """Yield the videos of every size."""
    for size in sizes:
        split = {"480x360": "test", "960x720": "full_test"}[size]
        photos = open_dataset("camvid:data/camvid", split)
        camera = static_camera(photos, frames)
        yield Video(f"static camera, {size}", camera, 0.1)
        yield Video(
            f"static camera with noise {NOISE:g}, {size}", static_camera(photos, frames, noise=NOISE), 0.1
        )
        yield Video(f"still, {size}", Still(camera, frames), 0.1)
    if "480x360" in sizes:
        clip = open_dataset("camvid:data/camvid", "clip_15hz")
        for budget in (0.3, 0.5):
            yield Video("driving, 15 Hz, 480x360", clip, budget)


def measure(
    engine: Engine, video: Video, frames: int, labeller: Labeller | None, report: Callable[[str], None]
) -> dict[str, object]:
    """Run both sides and the rival over a video."""
    config = configure(engine.model, METHOD, video.budget, {"first_budget": 1.0})
    count, same = min(frames, len(video.clip)), []
    dense, ours = (
        Side(method, Confusion(len(video.clip.classes)))
        for method in (engine.dense(), engine.make(METHOD, config))
    )
    rival = Static(labeller) if labeller else None
    for index in range(count):
        image, target = video.clip[index]
        third = (rival,) if rival else ()
        for side in (dense, ours, *third) if index % 2 else (*third, ours, dense):
            side.run(image[None].contiguous())
        for side in (dense, ours):
            side.judge(target[None])
        same.append(float((dense.labels == ours.labels).double().mean()))
    ratios = [one / two for one, two in zip(dense.ms[1:], ours.ms[1:], strict=True)]
    beside = (
        {
            "static": rival.row(),
            "times_faster_than_static": round(median(rival.ms[1:]) / median(ours.ms[1:]), 2),
        }
        if rival
        else {}
    )
    row = {
        "video": video.name,
        "precision": engine.precision,
        "frames": count,
        "budget": video.budget,
        "times_faster": round(median(dense.ms[1:]) / median(ours.ms[1:]), 2),
        "times_faster_frame_by_frame": round(median(ratios), 2),
        "agreement": round(fmean(same), 5),
        "dense": dense.row(),
        "ours": ours.row(),
        **beside,
        "settings": config.settings,
    }
    report(f"{video.name}, {engine.precision}: {row['times_faster']} times faster, work {ours.row()['work']}")
    return row


def run_all(
    engine: Engine, sizes: list[str], frames: int, seen: list[Tensor], folder: Path
) -> list[dict[str, object]]:
    """Measure every video; the rival is prepared once for every size."""
    rivals: dict[tuple[int, int], Rival] = {}
    rows = []
    for video in videos(sizes, frames):
        image = video.clip[0][0][None].contiguous()
        size = image.shape[2], image.shape[3]
        if size not in rivals:
            ranges = [resized(one[None], size) for one in seen]
            place = folder / "x".join(map(str, size))
            place.mkdir()
            rivals[size] = openvino_rival(engine.model.network, image, place, engine.precision, ranges)
            if rivals[size].why_not:
                print(f"without OpenVINO: {rivals[size].why_not}")
        rows.append(measure(engine, video, frames, rivals[size].labeller, print))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--sizes", nargs="+", choices=("480x360", "960x720"), default=["480x360", "960x720"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_memory()
    plain = find_engine(foveal.load_model(MODEL))
    photos = open_dataset("camvid:data/camvid", "train")
    seen = [photos[k * len(photos) // CALIBRATED][0] for k in range(CALIBRATED)]
    rows = []
    for precision in asked.precision:
        scales = int8_scales(plain, seen) if precision == "int8" else None
        engine = plain if precision == "f32" else plain.in_precision(precision, scales)
        with tempfile.TemporaryDirectory() as folder:
            rows += run_all(engine, asked.sizes, asked.frames, seen, Path(folder))
    place = f"benchmarks/video/{asked.out.name}"
    record = asdict(describe_machine()) | {
        "command": "python " + shlex.join(["benchmarks/video/speed.py", place, *sys.argv[2:]]),
        "model": MODEL,
        "method": METHOD,
        "rows": rows,
    }
    write_atomically(asked.out, json.dumps(record, indent=1) + "\n")
    print(f"wrote {asked.out}: {len(rows)} rows")


if __name__ == "__main__":
    main()
