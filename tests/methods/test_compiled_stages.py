"""Stages of a network as parts of a program: the answers and counts of the stages themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conformance import CLASSES, answer
from foveal.cost import count_macs
from foveal.exits import ExitConfig, Exits, Stages
from foveal.fusion import fuse
from foveal.geometry.plan import grid
from foveal.methods import LayerCascade, LayerCascadeConfig, Mess, MessConfig
from foveal.methods.compiled_stages import CompiledStages
from foveal.methods.staged import StagedSegmenter
from foveal.models import create_model
from foveal.program.parts import Cells
from samples import error_of, lively, nano

SIZE = (133, 250)


def networks() -> dict[str, nn.Module]:
    return {
        "nano": lively(nano(CLASSES), torch.rand(3, *SIZE)),
        "rn18": lively(create_model("swiftnet_rn18", CLASSES), torch.rand(3, *SIZE)),
        "mobile": lively(create_model("swiftnet_mobilenetv2", CLASSES), torch.rand(3, *SIZE)),
    }


def pair(kind: str, name: str, **settings: object) -> tuple[StagedSegmenter, StagedSegmenter]:
    """Return a method layer by layer, and as a program; with heads of every shape."""
    network = networks()[name]
    stages = Stages(network)
    exits = Exits.of(stages, ExitConfig("", width=16, blocks=1, kind="aspp"), seed=3).eval()
    fused, made = fuse(network), []
    for compiled in (False, True):
        one: StagedSegmenter = (
            LayerCascade(fused, LayerCascadeConfig(**settings), exits)  # type: ignore[arg-type]
            if kind == "layer_cascade"
            else Mess(fused, MessConfig(**settings), exits)  # type: ignore[arg-type]
        ).eval()
        if compiled:
            one.compile()
        made.append(one)
    return made[0], made[1]


def alike(eager: Tensor, compiled: Tensor) -> bool:
    return float((eager - compiled).abs().max()) <= 1e-4 * max(1.0, float(eager.abs().max()))


@pytest.mark.parametrize("name", ["nano", "rn18", "mobile"])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("mess", {"budget": 0.7}),
        ("mess", {"budget": 1.0, "threshold": 0.45}),
        ("mess", {"budget": 1.0}),
        ("layer_cascade", {"budget": 0.8}),
        ("layer_cascade", {"budget": 0.9, "settled": "vanish"}),
        ("layer_cascade", {"budget": 0.85, "coarse_level": 1, "exits": "2"}),
        ("layer_cascade", {"budget": 1.0}),
    ],
)
def test_a_program_answers_as_the_stages_do(name: str, kind: str, settings: dict[str, object]) -> None:
    eager, compiled = pair(kind, name, **settings)
    image = torch.rand(2, 3, *SIZE)
    one, other = answer(eager, image), answer(compiled, image)
    assert alike(one.logits, other.logits)
    assert torch.equal(one.trace.work, other.trace.work)
    if one.trace.levels is not None:
        assert torch.equal(one.trace.levels, other.trace.levels)


@pytest.mark.parametrize("kind", ["mess", "layer_cascade"])
def test_counted_macs_are_those_of_the_layers(kind: str) -> None:
    eager, compiled = pair(kind, "nano", budget=0.8)
    image = torch.rand(1, 3, 192, 256)
    found = [count_macs(lambda m=method: answer(m, image)).total for method in (eager, compiled)]
    assert found[1] == pytest.approx(found[0], rel=0.002)


def test_masks_leave_places_out_of_every_part() -> None:
    eager, compiled = pair("layer_cascade", "nano", budget=0.8)
    wanted = torch.zeros(2, *grid(SIZE, 32), dtype=torch.bool)
    wanted[0, :2, 1:5], wanted[1, 3:] = True, True
    image = torch.rand(2, 3, *SIZE)
    with torch.no_grad():
        one, other = (method.masked(image, wanted) for method in (eager, compiled))
    assert alike(one.logits, other.logits) and torch.equal(one.trace.levels, other.trace.levels)


def test_everything_through_a_compiled_network_is_its_dense_answer() -> None:
    for kind in ("mess", "layer_cascade"):
        _, compiled = pair(kind, "rn18", budget=1.0)
        image = torch.rand(1, 3, *SIZE)
        with torch.no_grad():
            dense = compiled.network(image)
        assert alike(dense, answer(compiled, image).logits)


def test_maps_that_are_missing_or_of_other_shapes_are_refused() -> None:
    _, compiled = pair("mess", "nano", budget=0.8)
    stages = compiled.compiled
    assert isinstance(stages, CompiledStages)
    program, cells = stages.program, Cells(1, (64, 96), 32)
    name = next(iter(program.parts[0].given))
    whole = np.zeros((1, 64, 96, 3), np.float32)
    program.run(0, cells, {name: whole})
    assert "must be float32 [1, 64, 96, 3]; given nothing" in error_of(lambda: program.run(0, cells, {}))
    small, double = whole[:, :32], whole.astype(np.float64)
    for wrong in (small, double):
        said = error_of(lambda x=wrong: program.run(0, cells, {name: x}))
        assert f"given {wrong.dtype} {list(wrong.shape)}" in said
    levels = np.zeros((1, 2, 2), np.int8)
    assert "plan" in error_of(lambda: program.run(0, Cells(1, (64, 96), 32, levels, 4), {name: whole}))


def test_nothing_to_compute_leaves_empty_maps() -> None:
    _, compiled = pair("mess", "nano", budget=0.8)
    assert compiled.compiled is not None
    program = compiled.compiled.program
    name = next(iter(program.parts[0].given))
    nothing = Cells(1, (64, 96), 32, np.full((1, 2, 3), -1, np.int8), 0)
    made, macs = program.run(0, nothing, {name: np.zeros((0, 32, 32, 3), np.float32)})
    assert macs == 0 and all(len(array) == 0 for array in made.values())
