"""Runs of large images that are killed, called again, or shared: the same bytes in the end."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import numpy as np
import pytest

from forked import start
from foveal.inference.large import Progress, segment_large
from foveal.inference.large.flow import flow
from sheets import engine, sheet

KILLS = int(os.environ.get("FOVEAL_KILLS", "3"))
ASKED = {"budget": 0.5, "window": 64, "confidence": True}


def work(image: str, out: str) -> None:
    """Segment in another process."""
    segment_large(engine(), image, out, **ASKED)  # type: ignore[arg-type]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_run_that_is_killed_goes_on_and_writes_the_same_bytes(tmp_path: Path) -> None:
    image = tmp_path / "image.npy"
    np.save(image, sheet(700, 900))
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    begun = time.monotonic()
    assert start(tmp_path, work, str(image), str(tmp_path / "whole/a.png")).wait() == 0
    took, chance = time.monotonic() - begun, random.Random(0)
    out = tmp_path / "killed/a.png"
    kept = 0
    for _ in range(KILLS):
        process = start(tmp_path, work, str(image), str(out))
        process.wait(chance.uniform(0.4, 0.95) * took)
        process.kill()
        if not out.exists():
            kept = max(kept, len(list((tmp_path / "killed").glob(".a.png.*/fine-*"))))
    assert start(tmp_path, work, str(image), str(out)).wait() == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert not list((tmp_path / "killed").glob(".*"))


class Stop(Exception):
    """Ends a run."""


@pytest.mark.parametrize("stage", ["coarse", "fine", "write"])
@pytest.mark.parametrize("after", [1, 3])
def test_what_was_done_is_not_done_again(stage: str, after: int, tmp_path: Path) -> None:
    image, calls = sheet(300, 400), []
    whole = segment_large(engine(), image, tmp_path / "whole.png", budget=0.5, window=64)

    def stop(progress: Progress) -> None:
        calls.append(progress)
        if progress.stage == stage and sum(p.stage == stage for p in calls) == after:
            raise Stop

    if stage == "write" and after > 1:
        pytest.skip("it is one strip")
    with pytest.raises(Stop):
        segment_large(engine(), image, tmp_path / "a.png", budget=0.5, window=64, report=stop)
    assert not (tmp_path / "a.png").exists()
    done = {p.stage: p for p in calls}
    again: list[Progress] = []
    found = segment_large(engine(), image, tmp_path / "a.png", budget=0.5, window=64, report=again.append)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    assert found.work == pytest.approx(whole.work) and found.pixels == whole.pixels
    left = {p.stage: p.total for p in again}
    assert left.get(stage, 0) == (done[stage].total - done[stage].pixels if stage != "write" else 300 * 400)


def test_another_budget_begins_anew(tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.stage == "fine":
            raise Stop

    image, out = sheet(200, 300), tmp_path / "a.png"
    with pytest.raises(Stop):
        segment_large(engine(), image, out, budget=0.5, window=64, report=stop)
    segment_large(engine(), image, out, budget=0.7, window=64)
    segment_large(engine(), image, tmp_path / "b.png", budget=0.7, window=64)
    assert out.read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.png",
        "b.png",
    ]  # the first one's rest is gone


def test_shards_share_the_work_and_write_the_same(tmp_path: Path) -> None:
    image = sheet(300, 400)
    whole = segment_large(engine(), image, tmp_path / "whole.png", budget=0.5, window=64)
    results = []
    for part in (1, 2, 3, 1, 2, 3):  # the coarse pass of all comes before the plan
        results.append(
            segment_large(engine(), image, tmp_path / "a.png", budget=0.5, window=64, shard=(part, 3))
        )
        if results[-1].files:
            break
    assert [bool(r.files) for r in results] == [False] * (len(results) - 1) + [True] and len(results) > 3
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    assert results[-1].work == pytest.approx(whole.work)
    with pytest.raises(ValueError, match="give K/N"):
        segment_large(engine(), image, tmp_path / "a.png", shard=(0, 3))


@pytest.mark.parametrize("where", ["read", "compute", "write"])
def test_what_fails_in_any_step_is_raised_and_ends_all(where: str) -> None:
    written: list[int] = []

    def step(name: str, value: int) -> int:
        if name == where and value == 3:
            raise Stop(name)
        return value

    def write(item: int, value: int) -> None:
        written.append(step("write", value))

    with pytest.raises(Stop, match=where):
        flow(range(100), lambda n: step("read", n), lambda n, v: step("compute", v), write)
    assert written == list(range(len(written))) and len(written) <= 3
    flow(range(7), lambda n: n, lambda n, v: v, write if where != "write" else lambda n, v: written.append(v))
