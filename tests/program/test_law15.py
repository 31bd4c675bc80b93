"""Law 15: the program's answer equals the eager engine's."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from foveal.geometry.plan import Plan
from foveal.methods import CoarseToFine, Refinement, SegBlocks
from foveal.policies import POLICIES, create_policy
from foveal.program import CoarseToFineRun, PlannedRun, SegBlocksRun
from foveal.program.spec import SCORES
from foveal.tiles import split
from strategies import random_plan

SIZES = ((200, 265), (128, 96), (97, 310))
TOLERANCE = 1e-4

pytestmark = pytest.mark.usefixtures("needs_kernels")


def error(found: np.ndarray, expected: Tensor) -> float:
    """Largest difference as a share of the largest logit."""
    other = expected.permute(0, 2, 3, 1).detach().numpy()
    assert found.shape == other.shape
    return float(abs(found - other).max() / abs(other).max())


@torch.no_grad()
@pytest.mark.parametrize("size", [*SIZES, (1, 1), (33, 1)])
def test_dense(name: str, size: tuple[int, int], program, tiled) -> None:
    image = torch.rand(2, 3, *size)
    result = program(name).run(image, threads=2, logits=True)
    assert error(result.logits, tiled(name)(image)) < TOLERANCE
    assert (result.levels == 0).all() and (result.work == 1).all()


@torch.no_grad()
@pytest.mark.parametrize("seed", range(8))
def test_random_plans_with_skips(name: str, seed: int, program, tiled) -> None:
    source = random.Random(seed)
    size, skip = SIZES[seed % len(SIZES)], source.choice([0.0, 0.3, 0.6])
    plan = random_plan(source, 2, size, 32, seed % 4, skip)
    image = torch.rand(2, 3, *size)
    expected = tiled(name)(split(image, plan)).dense()
    result = program(name).run(image, PlannedRun(plan.levels.numpy()), threads=1 + seed % 2, logits=True)
    assert error(result.logits, expected) < TOLERANCE
    np.testing.assert_allclose(result.work, plan.work.numpy())
    cells = plan.levels.numpy() < 0
    spread = cells.repeat(32, 1).repeat(32, 2)[:, : size[0], : size[1]]
    assert ((result.labels == 255) == spread).all()


@torch.no_grad()
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(("coarse_level", "budget"), [(1, 0.6), (2, 0.35), (2, 0.7), (3, 0.5)])
def test_coarse_to_fine(name: str, score: str, coarse_level: int, budget: float, program, network) -> None:
    image = torch.rand(2, 3, 200, 265)
    method = CoarseToFine(network(name), budget, 32, coarse_level, Refinement(POLICIES[score].score))
    expected = method(image)
    settings = CoarseToFineRun(budget, score, coarse_level=coarse_level)
    result = program(name).run(image, settings, logits=True)
    same = result.levels == expected.trace.levels.numpy()
    np.testing.assert_allclose(result.work, expected.trace.work.numpy())
    if (name, score) == ("swiftnet_efflite1", "regional_entropy") and not same.all():
        assert same.mean() > 0.95  # two averages that differ in their last bit order two tiles otherwise
        return
    assert same.all()
    assert error(result.logits, expected.logits) < TOLERANCE
    assert (result.labels == expected.labels.numpy()).mean() > 0.9999


@torch.no_grad()
@pytest.mark.parametrize("changes", [{"logit_blend": 0.4}, {"threshold": 0.5}, {"shared": True}])
def test_settings_of_coarse_to_fine(changes: dict, program, network) -> None:
    image = torch.rand(2, 3, 160, 200)
    image[1] *= 0.1
    name = "swiftnet_nano"
    method = CoarseToFine(network(name), 0.7, 32, 2, Refinement(level_gain=(0.3, 0.7), **changes))
    expected = method(image)
    settings = CoarseToFineRun(0.7, coarse_level=2, level_gain=(0.3, 0.7), **changes)
    result = program(name).run(image, settings, logits=True)
    assert (result.levels == expected.trace.levels.numpy()).all()
    assert error(result.logits, expected.logits) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("score", ["entropy", "margin"])
def test_segblocks(name: str, score: str, size: tuple[int, int], program, network) -> None:
    image = torch.rand(2, 3, *size)
    expected = SegBlocks(network(name), create_policy(score, 0.6, 32, 2, 2))(image)
    result = program(name).run(image, SegBlocksRun(0.6, score), logits=True)
    assert (result.levels == expected.trace.levels.numpy()).all()
    assert error(result.logits, expected.logits) < TOLERANCE
    np.testing.assert_allclose(result.work, expected.trace.work.numpy())


@torch.no_grad()
def test_a_mask_costs_nothing_and_has_no_label(program, tiled) -> None:
    """Law 13: as a plan that skips what nobody wants."""
    name, image = "swiftnet_nano", torch.rand(1, 3, 160, 192)
    mask = np.zeros((1, 5, 6), np.uint8)
    mask[:, 1:4, 2:5] = 1
    levels = np.where(mask, 0, -1).astype(np.int8)
    result = program(name).run(image, mask=mask, logits=True)
    expected = tiled(name)(split(image, Plan(torch.from_numpy(levels), 32, (160, 192)))).dense()
    assert error(result.logits, expected) < TOLERANCE
    assert (result.levels == levels).all() and result.work[0] == 9 * 32**2 / (160 * 192)


@torch.no_grad()
@pytest.mark.parametrize("settings", [CoarseToFineRun(0.4, coarse_level=2), SegBlocksRun(0.4)])
def test_methods_keep_to_a_mask(settings: object, program) -> None:
    image = torch.rand(2, 3, 256, 256)
    mask = np.zeros((2, 8, 8), np.uint8)
    mask[:, :4, :4] = 1
    result = program("swiftnet_nano").run(image, settings, mask=mask)
    assert ((result.levels >= 0) == (mask == 1)).all()
    assert ((result.labels == 255) == (mask.repeat(32, 1).repeat(32, 2) == 0)).all()
    assert (result.work <= 0.4 + 1 / 64).all()
