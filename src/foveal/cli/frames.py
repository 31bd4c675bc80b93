"""What `foveal evaluate --video` measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from foveal.cli.errors import echo_json, say
from foveal.cli.options import counter, prepare

if TYPE_CHECKING:
    from foveal.calibration.engine import Engine
    from foveal.data.pairs import Dataset
    from foveal.evaluation.tally import Entry
    from foveal.evaluation.video import Clip
    from foveal.hub.checkpoint import Model
    from foveal.methods import AdaptiveSegmenter

VIDEOS = ("clip", "static", "pan")
FRAMES = 60
"""Frames of a video that is made of photos."""


@dataclass(frozen=True)
class Frames:
    """What is measured over frames.

    Attributes:
        video: "clip", the images are the frames; "static", a still camera is made of them; "pan", one that
            turns.
        controls: Budgets that get rows of controls.
        timed: Frames that are timed.
        limit: Frames at most.
        json: Whether rows are written as JSON.
    """

    video: str
    controls: list[float]
    timed: int
    limit: int | None
    json: bool

    def checked(self, others: Mapping[str, object], threads: int | None) -> Frames:
        """Return it if nothing is given that is for single images; and set the number of threads.

        Raises:
            ValueError: There is no such kind of video, or something is.
        """
        if self.video not in VIDEOS:
            raise ValueError(f"--video is '{self.video}'; give {', '.join(VIDEOS[:-1])} or {VIDEOS[-1]}")
        wrong = [name for name, value in others.items() if value]
        if wrong:
            raise ValueError(f"{' and '.join(wrong)} is for single images; leave it out with --video")
        prepare(threads)
        return self


def measure_frames(loaded: Model, engine: Engine, data: Dataset, entries: list[Entry], how: Frames) -> None:
    """Measure rows over the frames of a video, and write them."""
    from foveal.evaluation.video import evaluate_video
    from foveal.reporting.evaluation_text import video_table

    clip: Clip = _clip(data, how)
    asked = [*entries, *_controls(loaded, engine, how.controls)]
    rows = evaluate_video(engine.dense(), clip, asked, how.timed, how.limit, counter("frames"))
    if how.json:
        echo_json(rows)
    else:
        say(video_table(rows))


def _clip(data: Dataset, how: Frames) -> Clip:
    """Return the frames: the images themselves, or a camera's that is made of them."""
    from foveal.data.moving_camera import MovingCamera
    from foveal.data.static_camera import static_camera

    if how.video == "clip":
        return data
    still = static_camera(data, how.limit or FRAMES)
    return still if how.video == "static" else MovingCamera(still)


def _controls(loaded: Model, engine: Engine, budgets: list[float]) -> list[Entry]:
    """Make rows of the same budgets: simple blocks; frame by frame, coarse to fine and shrunk; key frames."""
    from foveal.calibration.configure import configure
    from foveal.evaluation.baselines import key_frames, static
    from foveal.evaluation.tally import Entry

    first = {"first_budget": 1.0, "block_tiles": 1}
    simple = [("blockcopy", {**first, "policy": name}) for name in ("difference", "random")]
    rows: list[Entry] = []
    for share in (share for share in dict.fromkeys(budgets) if share < 1):
        for name, settings in (*simple, ("coarse_to_fine", {})):
            config = configure(loaded, name, share, settings)
            made = engine.make(name, config)
            policy, make = str(config.settings["policy"]), partial(_given, made)
            rows.append(Entry(name, policy, share, make, settings=config.settings))
        dense = engine.dense().dense()
        rows += [static(dense, share), *(key_frames(dense, share, shift) for shift in (False, True))]
    return rows


def _given(method: AdaptiveSegmenter, target: object) -> AdaptiveSegmenter:
    """Return a method whatever the labels are."""
    return method
