"""The memory of a video as a file: what is damaged or made up is refused before anything runs on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from foveal.geometry.plan import Plan
from foveal.tiles.video import VideoMemory, compute
from samples import error_of, headless

SIZE, TILE = (70, 90), 16


@pytest.fixture
def memory() -> VideoMemory:
    levels = Plan.from_scores(torch.rand(1, 5, 6), TILE, SIZE, 0.6, 1)
    with torch.no_grad():
        found = compute(headless(3), torch.rand(1, 3, *SIZE), levels, None, "test")
    return replace(found, state={"cost": torch.tensor([0.25])})


def test_it_comes_back_as_it_was(memory: VideoMemory, tmp_path: Path) -> None:
    memory.save(tmp_path / "memory.safetensors")
    found = VideoMemory.load(tmp_path / "memory.safetensors")
    assert (found.method, found.size, found.bytes) == ("test", SIZE, memory.bytes)
    assert torch.equal(found.held, memory.held) and float(found.state["cost"]) == 0.25
    for ours, theirs in zip(found.records, memory.records, strict=True):
        assert ours.operation == theirs.operation and torch.equal(ours.tiles, theirs.tiles)


def test_bytes_are_those_of_all_that_is_kept(memory: VideoMemory) -> None:
    parts = [memory.logits, memory.picture, memory.age, memory.state["cost"]]
    parts += [record.tiles for record in memory.records]
    assert memory.bytes == sum(x.numel() * x.element_size() for x in parts)


def changed(file: Path, name: str, value: Tensor | None) -> str:
    """Replace a tensor of a file, and return how it is refused."""
    from safetensors import safe_open

    with safe_open(str(file), "pt") as opened:
        header = opened.metadata()
    tensors = load_file(file)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, file, header)
    return error_of(lambda: VideoMemory.load(file))


@pytest.mark.parametrize(
    "name",
    ["layout.owner", "layout.level", "layout.row", "record.0", "logits", "picture", "age"],
)
def test_a_part_that_is_missing_is_named(name: str, memory: VideoMemory, tmp_path: Path) -> None:
    memory.save(tmp_path / "file")
    assert f"it lacks '{name}'" in changed(tmp_path / "file", name, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layout.owner", torch.full((1, 5, 6), 400)),
        ("layout.owner", torch.zeros(1, 5, 6, dtype=torch.int64)),
        ("layout.owner", torch.zeros(1, 4, 6, dtype=torch.int64)),
        ("layout.level", torch.full((3,), 0)),
        ("layout.image", torch.full((4,), 7)),
        ("record.1", torch.zeros(2, 3, 4, 4)),
        ("picture", torch.zeros(1, 3, 5, 5)),
        ("age", torch.zeros(1, 2, 2, dtype=torch.int32)),
        ("state.cost", torch.zeros(4)),
        ("logits", torch.full((1, 3, 18, 23), torch.nan)),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    name: str, value: Tensor, memory: VideoMemory, tmp_path: Path
) -> None:
    memory.save(tmp_path / "file")
    message = changed(tmp_path / "file", name, value)
    assert message.startswith(str(tmp_path / "file"))
    assert "no memory of a video" in message or "NaN" in message


def test_a_memory_of_another_network_is_refused_in_a_sentence(memory: VideoMemory) -> None:
    plan = Plan.uniform(1, SIZE, TILE)
    renamed = tuple(replace(record, operation="conv6d") for record in memory.records)
    said = error_of(
        lambda: compute(headless(3), memory.picture, plan, replace(memory, records=renamed), "test")
    )
    assert "was conv6d of" in said and said.endswith("start anew without the memory")


def test_other_files_are_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "weights")
    (tmp_path / "text").write_text("no tensors")
    for name in ("weights", "text", "nowhere"):
        assert "memory of a video" in error_of(lambda n=name: VideoMemory.load(tmp_path / n))
