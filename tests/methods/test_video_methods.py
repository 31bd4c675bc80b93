"""What the methods of video decide: which places of a frame are computed, and when a scene begins."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conformance import CLASSES, make
from foveal.geometry.plan import SKIP
from foveal.methods import BlockCopy, Prediction
from foveal.methods.blockcopy import LEARNING
from foveal.policies.online import WEIGHT
from foveal.tiles.video import VideoMemory
from samples import error_of, headless

SIZE, TILE = (128, 192), 16


def scene(seed: int = 0) -> Tensor:
    """Draw a picture of large patches, as scenes have them."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, 6, 8, generator=generator)
    return torch.nn.functional.interpolate(small, SIZE, mode="bilinear")


def wide() -> nn.Module:
    """Make a network beside which a policy is small."""
    layers = [nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 128, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(128, CLASSES, 3, padding=1))


def ours(**wishes: Any) -> Any:
    return make("video_coarse_to_fine", headless(CLASSES), tile=TILE, levels=2, first_budget=1.0, **wishes)


def blocks(**wishes: Any) -> BlockCopy:
    wishes = {"policy_width": 1, "block_tiles": 2, "first_budget": 1.0, **wishes}
    made = make("blockcopy", wide(), tile=TILE, levels=2, **wishes)
    assert isinstance(made, BlockCopy)
    return made


@torch.no_grad()
def go(method: Any, frames: list[Tensor], memory: VideoMemory | None = None) -> list[Prediction]:
    found: list[Prediction] = []
    for frame in frames:
        found.append(method(frame, found[-1].memory if found else memory))
    return found


def levels(prediction: Prediction) -> Tensor:
    assert prediction.trace.plan is not None
    return prediction.trace.plan.levels[0]


def test_what_changed_is_computed_and_nothing_else() -> None:
    frame = scene()
    changed = frame.clone()
    changed[:, :, 36:44, 84:92] += 0.4
    for method in (ours(), blocks(policy="difference", block_tiles=1)):
        found = levels(go(method, [frame, changed])[1])
        assert int(found[2, 5]) >= 0
        assert int((found >= 0).sum()) <= 16  # the square of a coarse tile at most
        assert bool((found[:, :4] == SKIP).all())


def test_places_of_a_coarse_first_frame_are_refined_where_they_change() -> None:
    frame = scene()
    method = make("video_coarse_to_fine", headless(CLASSES), tile=TILE, levels=2, budget=0.1)
    changed = frame + 0.3 * (torch.arange(SIZE[1]) < 32)
    first, second = go(method, [frame, changed])
    assert int(levels(first).min()) >= 0 and int(levels(first)[0, 0]) > 0
    assert int((levels(second) == 0).sum()) > 0
    assert isinstance(second.memory, VideoMemory)
    held = second.memory.held[0]
    computed = levels(second) >= 0
    assert torch.equal(held[computed], levels(second)[computed].long())
    assert torch.equal(held[~computed], levels(first)[~computed].long())


def test_another_scene_is_a_first_frame() -> None:
    method = ours(budget=0.3)
    same, cut = scene(0), scene(5)
    found = go(method, [same, same.roll(2, 3), cut, cut])
    assert float(found[1].trace.work) <= 0.31
    assert bool((levels(found[2]) == 0).all())
    with torch.no_grad():
        assert torch.allclose(found[2].logits, method.dense()(cut), atol=1e-4)
    assert float(found[3].trace.work) == 0


def test_a_place_that_differs_a_little_is_computed_when_it_is_old() -> None:
    frame = scene()
    drifted = frame.clone()
    drifted[:, :, :16, :16] += 0.004  # far below noise
    found = go(ours(max_age=4), [frame, *[drifted] * 6])
    works = [float(p.trace.work) for p in found[1:]]
    assert works[:3] == [0.0] * 3 and works[3] > 0 and works[4:] == [0.0, 0.0]
    assert not any(float(p.trace.work) for p in go(ours(max_age=100), [frame, *[drifted] * 6])[1:])


def test_a_level_changes_only_for_a_gain() -> None:
    frame = scene()
    changed = (frame + 0.2).clamp(0, 1)
    loose, steady = (go(ours(budget=0.9, hysteresis=h), [frame, changed])[1] for h in (0.0, 9.0))
    kept = levels(steady)
    assert bool(((kept == 0) | (kept == SKIP)).all())  # the first frame was at level 0
    assert bool((levels(loose) > 0).any())


def test_noise_is_not_change() -> None:
    frame = scene()
    noisy = frame + 0.01 * torch.randn(frame.shape, generator=torch.Generator().manual_seed(1))
    assert float(go(ours(), [frame, noisy])[1].trace.work) == 0


def test_the_policy_counts_and_learns_and_its_budget_holds() -> None:
    method, frames = blocks(learn_every=2, budget=0.5), [scene(k) for k in range(5)]
    found = go(method, frames)
    works = [[float(step.work) for step in p.trace.steps] for p in found[1:]]
    decision = min(spent[0] for spent in works)
    assert [round(spent[0] / decision) for spent in works] == [1, 1 + LEARNING, 1, 1 + LEARNING]
    assert all(sum(spent) <= 0.5 + TILE**2 / prod(SIZE) for spent in works)
    first, last = found[0].memory, found[-1].memory
    assert isinstance(first, VideoMemory) and isinstance(last, VideoMemory)
    assert any(not torch.equal(last.state[k], v) for k, v in first.state.items() if k.startswith(WEIGHT))
    assert int(last.state["frames"]) == 5


def test_with_a_prior_every_block_is_computed_in_the_end() -> None:
    """Frames that differ everywhere by noise: what is computed again and again must not starve the rest."""
    generator = torch.Generator().manual_seed(1)
    frames = [(scene() + 0.03 * torch.rand(scene().shape, generator=generator)) for _ in range(24)]
    for prior, all_of_them in (("staleness", True), ("none", False)):
        found = go(blocks(prior=prior, budget=0.3, block_tiles=1, learn_every=4), frames)
        memory = found[-1].memory
        assert isinstance(memory, VideoMemory)
        assert (int(memory.age.max()) < 23) is all_of_them


def test_a_policy_that_the_budget_does_not_pay_for_is_said_so() -> None:
    method = blocks(policy_width=64, budget=0.3)
    assert "the policy alone takes" in error_of(lambda: go(method, [scene(0), scene(1)]))


def test_the_share_that_the_policy_is_said_to_take_is_what_it_takes() -> None:
    from foveal.cost import count_macs

    method, frames = blocks(learn_every=0, budget=0.9, policy_width=2), [scene(0), scene(1)]
    first = go(method, frames[:1])[0].memory
    found: list[Prediction] = []
    spent = count_macs(lambda: found.append(method(frames[1], first))).convolution
    decision, plan = found[0].trace.steps[0], found[0].trace.plan
    assert plan is not None and decision.name == "policy"
    without = count_macs(lambda: method.network(torch.zeros(1, 3, TILE * 2, TILE * 2))).total
    per_pixel = without / (TILE * 2) ** 2
    tiles = count_macs(lambda: method.masked(frames[1], plan.levels >= 0)).convolution
    counted = float(decision.work) * per_pixel * prod(SIZE)
    assert abs(spent - tiles - counted) <= 0.35 * counted + 1


@pytest.mark.parametrize("policy", ["online", "difference", "random", "entropy", "weighted_entropy"])
def test_every_policy_of_blocks_runs(policy: str) -> None:
    found = go(blocks(policy=policy, budget=0.6), [scene(0), scene(0) * 0.9, scene(0) * 0.8])
    assert all(float(p.trace.work) <= 0.6 + TILE**2 / prod(SIZE) for p in found[1:])


def test_settings_that_are_none_are_refused() -> None:
    assert "policy of blocks" in error_of(lambda: blocks(policy="nobody"))
    assert "choice of blocks" in error_of(lambda: blocks(choice="all"))
    assert "prior of the online policy" in error_of(lambda: blocks(prior="good"))
    assert "score of uncertainty" in error_of(lambda: ours(policy="detail"))
