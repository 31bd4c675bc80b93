"""The policy that learns while it decides."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from foveal.objectives.information_gain import block_maxima, segmentation_gain
from foveal.objectives.policy_gradient import reinforce
from foveal.policies.online import (
    REACH,
    SIDES,
    SQUARE,
    WEIGHT,
    Frame,
    OnlinePolicy,
    beyond_mean,
    channels_of,
    policy_net,
    samples_of,
)
from foveal.policies.protocol import View
from foveal.policies.temporal import staleness

POLICY = OnlinePolicy(width=4, every=1, rate=1e-2)
BLOCK = 32


def frame(streams: int = 2, size: tuple[int, int] = (70, 100)) -> Frame:
    rows, columns = (-(-side // BLOCK) for side in size)
    image, picture = torch.rand(2, streams, 3, *size)
    return Frame(
        image, picture, torch.randn(streams, 5, 18, 25), torch.rand(streams, rows, columns) > 0.5, BLOCK
    )


def start(streams: int = 2) -> dict[str, Tensor]:
    return POLICY.start(streams, channels_of(3, 5), torch.full((streams,), 0.5))


def test_a_block_has_a_logit_whatever_the_size() -> None:
    for size in ((70, 100), (1, 1), (32, 64)):
        found = POLICY.logits(start(), frame(size=size), torch.tensor([True, False]))
        assert found.shape == (2, -(-size[0] // BLOCK), -(-size[1] // BLOCK))
        assert bool(found[0].isfinite().all()) and not found[1].any()


def test_streams_do_not_influence_one_another() -> None:
    both, state = frame(), start()
    one = Frame(both.image[1:], both.picture[1:], both.logits[1:], both.computed[1:], BLOCK)
    together = POLICY.logits(state, both, torch.tensor([True, True]))
    alone = POLICY.logits({k: v[1:] for k, v in state.items()}, one, torch.tensor([True]))
    torch.testing.assert_close(together[1:], alone)


def test_first_weights_follow_from_the_seed_and_leave_random_numbers_alone() -> None:
    policy_net.cache_clear()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = start()
    assert torch.equal(torch.rand(3), expected)
    policy_net.cache_clear()
    second = start()
    assert all(torch.equal(first[k], second[k]) for k in first)


def learned(state: dict[str, Tensor], seen: Frame, after: Tensor, computed: Tensor) -> dict[str, Tensor]:
    decided = torch.ones_like(computed)
    target = torch.full((len(computed),), 0.4, dtype=torch.float64)
    return POLICY.learn(state, seen, after, computed, decided, target)


def test_a_step_is_that_of_pytorchs_rmsprop_on_the_reinforce_loss() -> None:
    seen, state = frame(1), start(1)
    after, computed = torch.randn_like(seen.logits), seen.computed.flip(1)
    found = learned(state, seen, after, computed)
    net = policy_net(seen.channels, 4, 0, seen.side)
    weights = {
        k.removeprefix(WEIGHT): v[0].clone().requires_grad_()
        for k, v in state.items()
        if k.startswith(WEIGHT)
    }
    optimiser = torch.optim.RMSprop(weights.values(), lr=POLICY.rate, weight_decay=POLICY.decay)
    cost = 0.4 - state["cost"]
    worth = block_maxima(segmentation_gain(seen.logits, after), seen.size, BLOCK)
    worth = worth + 5 * (cost * cost.abs()).float()[:, None, None]
    reinforce(functional_call(net, weights, (seen.thumbnail(),)), computed, worth).backward()
    optimiser.step()
    for name, weight in weights.items():
        torch.testing.assert_close(found[WEIGHT + name][0], weight.detach())
        assert bool((found[SQUARE + name] >= 0).all())


def test_learning_changes_no_value_that_it_is_given() -> None:
    seen, state = frame(), start()
    before = {k: v.clone() for k, v in state.items()}
    with torch.inference_mode():
        found = learned(state, seen, torch.randn_like(seen.logits), seen.computed)
    assert all(torch.equal(before[k], state[k]) for k in state)
    assert any(not torch.equal(found[k], state[k]) for k in state if k.startswith(WEIGHT))


def test_blocks_that_tell_something_become_more_likely() -> None:
    seen, state = frame(1), start(1)
    state["cost"] = torch.tensor([0.4], dtype=torch.float64)
    computed = torch.ones_like(seen.computed)
    after = seen.logits.clone()
    after[:, :, :, :8] = -after[:, :, :, :8]  # the first column of blocks is answered anew
    some = torch.tensor([True])
    before = POLICY.logits(state, seen, some)
    for _ in range(20):
        state = learned(state, seen, after, computed)
    gained = (POLICY.logits(state, seen, some) - before)[0]
    assert float(gained[:, 0].mean()) > float(gained[:, 1:].mean())


@pytest.mark.parametrize(("cost", "rises"), [(0.0, True), (1.0, False)])
def test_work_that_is_left_makes_blocks_likelier_and_overspending_less_likely(
    cost: float, rises: bool
) -> None:
    seen, state = frame(1), start(1)
    state["cost"] = torch.tensor([cost], dtype=torch.float64)
    some, computed = torch.tensor([True]), seen.computed
    before = POLICY.logits(state, seen, some).mean()
    for _ in range(10):
        state = learned(state, seen, seen.logits, computed)
    assert bool(POLICY.logits(state, seen, some).mean() > before) == rises


def test_the_moving_cost_and_the_frames_are_counted() -> None:
    state = POLICY.counted(start(1), torch.tensor([[[True, False, False, False]]]))
    assert float(state["cost"]) == pytest.approx(0.9 * 0.5 + 0.1 * 0.25)
    assert int(state["frames"]) == 2


def test_draws_are_those_of_the_state() -> None:
    state, logits = start(), torch.zeros(2, 6, 8)
    first, again = POLICY.draw(state, logits), POLICY.draw(state, logits)
    later = POLICY.draw(POLICY.counted(state, first), logits)
    assert torch.equal(first, again) and not torch.equal(first, later)
    assert bool(POLICY.draw(state, logits + 50).all()) and not bool(POLICY.draw(state, logits - 50).any())


@pytest.mark.parametrize(
    ("block", "side"), [(128, 32), (64, 16), (32, 8), (16, 4), (8, 4), (1, 4), (96, 16), (1024, 32)]
)
def test_the_network_sees_a_quarter_of_the_resolution_and_has_a_logit_a_block(block: int, side: int) -> None:
    assert samples_of(block) == side
    net = policy_net(5, 2, 0, side)
    for rows, columns in ((3, 4), (1, 1)):
        assert net(torch.rand(1, 5, side * rows, side * columns)).shape == (1, rows, columns)


def test_weights_are_of_one_shape_whatever_the_blocks() -> None:
    shapes = [
        {k: v.shape for k, v in policy_net(5, 2, 0, side).state_dict().items()} for side in (4, 8, 16, 32)
    ]
    assert all(shape == shapes[0] for shape in shapes) and SIDES == (4, 32)


def test_gains_count_beyond_their_mean_and_in_deviations() -> None:
    gain = torch.tensor([[[1.0, 3.0, 9.0, 50.0]], [[2.0, 2.0, 2.0, 2.0]]])
    computed = torch.tensor([[[True, True, True, False]], [[True, True, False, False]]])
    found = beyond_mean(gain, computed)
    counted = found[0, 0, :3]
    assert float(counted.mean()) == pytest.approx(0, abs=1e-6)
    assert float(counted.std(correction=0)) == pytest.approx(1)
    assert counted.argsort().tolist() == [0, 1, 2] and float(found[0, 0, 3]) == 0
    assert not found[1].any()  # all alike
    assert not beyond_mean(gain, torch.zeros_like(computed)).any()


def with_prior(seen: Frame) -> tuple[OnlinePolicy, Frame, dict[str, Tensor]]:
    policy = OnlinePolicy(width=4, every=1, rate=1e-2, has_prior=True)
    prior = torch.linspace(-1, 1, seen.computed.numel()).view(seen.computed.shape)
    state = policy.start(1, seen.channels, torch.full((1,), 0.4))
    return policy, Frame(seen.image, seen.picture, seen.logits, seen.computed, BLOCK, prior), state


def test_logits_begin_as_the_prior_and_learning_moves_them_no_further_than_its_reach() -> None:
    policy, seen, state = with_prior(frame(1))
    some, computed = torch.tensor([True]), torch.ones_like(seen.computed)
    assert seen.prior is not None
    assert torch.equal(policy.logits(state, seen, some), seen.prior)
    after = seen.logits.clone()
    after[:, :, :, :8] *= -1  # the first column of blocks is answered anew
    target = torch.full((1,), 0.4, dtype=torch.float64)
    for _ in range(60):
        state = policy.learn(state, seen, after, computed, computed, target)
    moved = (policy.logits(state, seen, some) - seen.prior)[0]
    assert float(moved.abs().max()) <= REACH
    assert float(moved[:, 0].mean()) > float(moved[:, 1:].mean()) + 0.1


def test_what_is_computed_is_not_rewarded_for_being_computed() -> None:
    """Blocks that tell all the same keep their logits: none becomes likelier because it was chosen before."""
    policy, seen, state = with_prior(frame(1))
    some = torch.tensor([True])
    target = torch.full((1,), 0.4, dtype=torch.float64)
    found = policy.learn(state, seen, seen.logits, seen.computed, torch.ones_like(seen.computed), target)
    assert torch.equal(policy.logits(found, seen, some), policy.logits(state, seen, some))


def test_staleness_grows_with_change_uncertainty_and_age() -> None:
    image = torch.full((1, 3, 64, 64), 0.5)
    picture = image.clone()
    picture[:, :, :32, :32] += 0.1
    picture[:, :, 32:, :] += 0.01
    logits = torch.zeros(1, 5, 16, 16)
    logits[:, 0] = 4.0
    logits[:, :, 8:, 8:] = 0.0  # uncertain at the bottom right
    age = torch.tensor([[[1, 1], [1, 1]]])
    view = View(image, logits, previous=picture)
    first = staleness(view, age, 32)[0]
    assert float(first[0, 0]) > float(first[1, 0]) > float(first[0, 1])
    assert float(first[1, 1]) > float(first[1, 0])
    older = staleness(view, age * 4, 32)[0]
    torch.testing.assert_close(older - first, torch.full((2, 2), 4.0).log())
