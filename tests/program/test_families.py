"""Law 15 for what is typical of the networks that people train: small ones of every family."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from families import DENSE_MODULES, FAMILIES
from foreign import lively, picture
from foveal.cost import count_macs
from foveal.fusion import fuse
from foveal.geometry.plan import Plan
from foveal.methods import CoarseToFine, Refinement
from foveal.policies import POLICIES
from foveal.program import CoarseToFineRun, PlannedRun, Program, load_program
from foveal.program.compile import compile_fused
from foveal.program.quantise import find_scales, in_bf16, in_int8
from foveal.tiles import run_dense, split
from strategies import random_plan

TILE, TOLERANCE = 16, 1e-4
SIZES = ((144, 208), (104, 72))
WHOLE = {"coarse_sequences"}
"""Networks that ask for a share of the image's sides: the coarsest level of a plan must have it too."""
RAGGED = ((75, 101), (33, 130), (1, 9))


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@cache
def network(family: str) -> nn.Module:
    torch.manual_seed(0)
    return lively(FAMILIES[family][0]())


@cache
def fused(family: str) -> nn.Module:
    names = DENSE_MODULES.get(family, ())
    made = fuse(network(family), names, FAMILIES[family][1])
    for name in names:
        run_dense(made.get_submodule(name))
    return made


@cache
def program(family: str, precision: str = "f32") -> Program:
    if precision == "f32":
        return compile_fused(fused(family), DENSE_MODULES.get(family, ()), FAMILIES[family][1])
    made = program(family)
    return in_bf16(made) if precision == "bf16" else in_int8(made, find_scales(made, [image(SIZES[0])], 0.0))


def image(size: tuple[int, int], count: int = 2) -> np.ndarray:
    return picture(size=size, count=count).numpy()


def off(found: np.ndarray, expected: torch.Tensor) -> float:
    """Largest difference as a share of the largest logit."""
    other = expected.permute(0, 2, 3, 1).numpy()
    assert found.shape == other.shape
    return float(abs(found - other).max() / abs(other).max())


@torch.no_grad()
def test_dense(family: str) -> None:
    sizes = SIZES + (RAGGED if FAMILIES[family][1] == 1 else ())
    for size in sizes:
        x = image(size)
        found = program(family).run(x, threads=2, logits=True)
        assert off(found.logits, network(family)(torch.from_numpy(x))) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("seed", range(6))
def test_plans_of_all_levels(family: str, seed: int) -> None:
    """Image by image: what one image is given depends on no other one, whatever their finest levels."""
    source = random.Random(seed)
    sizes = SIZES + (RAGGED[:2] if FAMILIES[family][1] == 1 else ())
    size = sizes[seed % len(sizes)]
    plan = random_plan(
        source, 2, size, TILE, min(seed % 4, 1 if family in WHOLE else 3), source.choice([0, 0.3])
    )
    x = image(size)
    found = program(family).run(
        x, PlannedRun(plan.levels.numpy(), tile=TILE), threads=1 + seed % 2, logits=True
    )
    for n in range(2):
        alone = Plan(plan.levels[n : n + 1], TILE, size)
        expected = fused(family)(split(torch.from_numpy(x[n : n + 1]), alone)).dense()
        assert off(found.logits[n : n + 1], expected) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("level", [1, 2])
def test_refinement(family: str, level: int) -> None:
    """Later passes read statistics and borders of earlier ones."""
    x = image(SIZES[0], 1)
    score = Refinement(POLICIES["entropy"].score)
    expected = CoarseToFine(fused(family), 0.7, TILE, level, score)(torch.from_numpy(x))
    found = program(family).run(x, CoarseToFineRun(0.7, "entropy", TILE, level), logits=True)
    assert (found.levels == expected.trace.levels.numpy()).all()
    assert off(found.logits, expected.logits) < TOLERANCE


@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.03), ("int8", 0.15)])
def test_reduced_precision(family: str, precision: str, limit: float) -> None:
    x, plan = image(SIZES[0]), Plan.uniform(2, SIZES[0], TILE, 0).levels.numpy().copy()
    plan[:, :4, :4], plan[:, 6:8, 8:10] = 1, -1
    for settings in (None, PlannedRun(plan, tile=TILE)):
        exact, found = (program(family, p).run(x, settings, logits=True) for p in ("f32", precision))
        spread = abs(exact.logits - exact.logits.mean()).mean()
        assert abs(exact.logits - found.logits).mean() / spread < limit


def test_a_file_holds_it(family: str, tmp_path: Path) -> None:
    program(family).save(tmp_path / "net.foveal")
    x = image(SIZES[1])
    one, two = (
        p.run(x, CoarseToFineRun(0.7, tile=TILE), logits=True, threads=1)
        for p in (program(family), load_program(tmp_path / "net.foveal"))
    )
    np.testing.assert_array_equal(one.logits, two.logits)


@torch.no_grad()
def test_as_many_threads_as_there_are_give_the_same_answer(family: str) -> None:
    x = image(SIZES[1])
    one, two = (
        program(family).run(x, CoarseToFineRun(0.7, tile=TILE), logits=True, threads=k) for k in (1, 3)
    )
    np.testing.assert_array_equal(one.logits, two.logits)


@torch.no_grad()
def test_macs_are_those_of_the_network(family: str) -> None:
    """But for resizing that changes nothing, which PyTorch computes."""
    x = image(SIZES[0])
    expected = count_macs(lambda: network(family)(torch.from_numpy(x))).total
    assert 0.94 * expected <= program(family).run(x).macs <= 1.01 * expected
