"""How far whole pictures move from frame to frame of clips, and whether tiles could follow: writes JSON.

    python benchmarks/video/motion.py OUT.json camvid:data/camvid@clip_15hz folder:data/fine/video_davis@dog

For every clip: the share of the frames that have moved by any whole pixels, and by whole tiles of 32 px; and
the mean difference of a frame from the one before it, as it is and moved by the best shift.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from foveal.benchmark.machine import describe_machine
from foveal.data.dataset import open_dataset
from foveal.geometry.motion import Grey, global_shift, shifted
from foveal.storage.atomic import write_atomically

TILE = 32
"""Side of a tile [px]."""


def measure(spec: str, split: str) -> dict[str, object]:
    """Measure one clip."""
    data = open_dataset(spec, split)
    moved, whole, kept, followed = 0, 0, [], []
    before: Grey | None = None
    for index in range(len(data)):
        after = data[index][0].mean(0).numpy()
        if before is not None:
            shift = global_shift(before, after)
            moved += shift != (0, 0)
            whole += shift != (0, 0) and not any(by % TILE for by in shift)
            kept.append(float(np.abs(after - before).mean()))
            followed.append(float(np.abs(after - shifted(before, shift)).mean()))
        before = after
    pairs = len(kept)
    return {
        "clip": data.name,
        "frames": len(data),
        "moved": round(moved / pairs, 4),
        "moved_by_tiles": round(whole / pairs, 4),
        "difference": round(float(np.mean(kept)), 5),
        "difference_moved": round(float(np.mean(followed)), 5),
    }


def main() -> None:
    """Measure all clips that are named."""
    out, *clips = sys.argv[1:]
    if not clips:
        sys.exit("usage: motion.py OUT.json DATA@SPLIT [DATA@SPLIT ...]")
    record = asdict(describe_machine()) | {
        "command": "python " + shlex.join(["benchmarks/video/motion.py", *sys.argv[1:]]),
        "rows": [measure(*clip.rsplit("@", 1)) for clip in clips],
    }
    write_atomically(Path(out), json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
