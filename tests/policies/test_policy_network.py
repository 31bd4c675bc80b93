"""The policy network, and the plans that follow from it."""

from __future__ import annotations

from math import prod
from random import Random

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.cost import count_macs, relative_macs
from foveal.geometry.plan import Plan, grid
from foveal.methods import SegBlocks
from foveal.policies import Learned, PolicyNet, View
from samples import error_of, headless, shaken
from strategies import sources


def small(block: int = 16, share: float = 0.0) -> PolicyNet:
    """Make a policy network of stride 8 with random weights and statistics."""
    net: PolicyNet = shaken(PolicyNet(block, 4, 2)).eval()
    net.share = share
    return net


# The network


@pytest.mark.parametrize(
    ("depth", "gmacs", "paper"), [(2, 0.005, 0.01), (3, 0.072, 0.07), (4, 0.339, 0.34), (5, 1.409, 1.51)]
)
def test_its_macs_are_those_of_the_paper(depth: int, gmacs: float, paper: float) -> None:
    """Table VII, blocks of 128 px at 1024x2048; the deepest one of the paper has 7 % more."""
    net, image = PolicyNet(128, 64, depth).eval(), torch.zeros(1, 3, 1024, 2048)
    found = count_macs(lambda: net(image)).total / 1e9
    assert found == pytest.approx(gmacs, abs=5e-4)
    assert found == pytest.approx(paper, abs=0.006 if depth < 5 else 0.11)


def test_it_has_as_many_parameters_as_the_released_one() -> None:
    assert sum(p.numel() for p in PolicyNet().parameters()) == pytest.approx(216e3, rel=0.01)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (32, 64), (33, 65), (70, 97)])
@pytest.mark.parametrize(("block", "depth"), [(8, 2), (32, 2), (16, 3), (64, 4)])
def test_a_logit_for_every_block_of_any_image(block: int, depth: int, size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    with torch.no_grad():
        assert PolicyNet(block, 4, depth).eval()(image).shape == (2, *grid(size, block))


def test_an_image_goes_on_as_its_edge_up_to_whole_blocks() -> None:
    net, image = small(32), torch.rand(1, 3, 37, 70)
    whole = F.pad(image, (0, 26, 0, 27), mode="replicate")
    with torch.no_grad():
        torch.testing.assert_close(net(image), net(whole))


def test_the_thumbnail_is_an_average() -> None:
    """What changes from pixel to pixel is not seen; every pixel counts."""
    net, image = small(32), torch.rand(1, 3, 16, 24).repeat_interleave(4, 2).repeat_interleave(4, 3)
    texture = (torch.arange(64)[:, None] + torch.arange(96)) % 2 - 0.5
    with torch.no_grad():
        torch.testing.assert_close(net(image + texture), net(image), rtol=1e-4, atol=1e-5)
        for pixel in ((0, 0), (1, 3), (2, 2)):
            other = image.clone()
            other[0, :, pixel[0], pixel[1]] += 1
            assert not torch.equal(net(other), net(image))


def test_it_computes_in_the_precision_of_its_weights_also_under_autocast() -> None:
    net, image = small(), torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        expected = net(image)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(net(image.bfloat16().float()), net(image.bfloat16()))
            assert torch.equal(net(image), expected)
        double = net.double()(image.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), expected, rtol=1e-4, atol=1e-5)


def test_its_arguments_make_it_again() -> None:
    net = PolicyNet(32, 8, 3)
    PolicyNet(**net.config).load_state_dict(net.state_dict())


@pytest.mark.parametrize(
    ("block", "width", "depth"), [(48, 8, 4), (0, 8, 2), (64, 0, 4), (64, 8, 1), (4, 8, 2)]
)
def test_what_is_no_policy_network_is_refused(block: int, width: int, depth: int) -> None:
    message = error_of(lambda: PolicyNet(block, width, depth))
    assert f"a policy network of {depth} layers, width {width} and block {block} px cannot be" in message
    assert "a multiple of 2^(layers + 1) px" in message


# Plans


def by_logits(logits: Tensor, block: int) -> PolicyNet:
    """Make a policy network that says what it is told."""
    net = small(block)
    net.forward = lambda image: logits  # type: ignore[method-assign]
    return net


def test_without_a_budget_blocks_above_one_half_are_seen_closely() -> None:
    logits = torch.tensor([[[-3.0, 1e-6, 0.0], [2.0, -1e-6, 0.5]]])
    plan = Learned(by_logits(logits, 16), 8)(View(torch.rand(1, 3, 32, 48)))
    expected = Plan.from_blocks((logits.sigmoid() <= 0.5).to(torch.int8), 16, 8, (32, 48))
    assert torch.equal(plan.levels, expected.levels)
    assert plan.share(0) == 0.5


@pytest.mark.parametrize("tile", [8, 4, 2])
def test_blocks_of_any_number_of_tiles_are_seen_as_a_whole(tile: int) -> None:
    """The highest logits get what three blocks at full resolution add; a block is never divided."""
    logits = torch.randn(1, 3, 4)
    net, size = by_logits(logits, 16), (48, 64)
    budget = 0.25 + 3 * 0.75 / 12 - tile**2 / prod(size)
    plan = Learned(net, tile, budget)(View(torch.rand(1, 3, *size)))
    closest = torch.zeros(12, dtype=torch.bool).scatter(0, logits.flatten().topk(3).indices, True)
    expected = (~closest.view(3, 4)).repeat_interleave(16 // tile, 0).repeat_interleave(16 // tile, 1)
    assert torch.equal(plan.levels[0], expected.to(torch.int8))


def test_blocks_of_one_logit_are_taken_in_reading_order() -> None:
    net = by_logits(torch.zeros(1, 3, 4), 16)
    plan = Learned(net, 8, 0.25 + 5 * 0.75 / 12)(View(torch.rand(1, 3, 48, 64)))
    assert (plan.levels[0, ::2, ::2] == 0).flatten().tolist() == [True] * 5 + [False] * 7


def tiles_of(fine: Tensor, policy: Learned, size: tuple[int, int]) -> int:
    return int(Plan.from_blocks((~fine).to(torch.int8), policy.net.block, policy.tile, size).tiles)


@settings(max_examples=20)
@given(source=sources())
def test_a_budget_is_met_to_a_tile_by_rank_at_any_size(source: Random) -> None:
    torch.manual_seed(source.randint(0, 2**30))
    size = tuple(source.choice([source.randint(1, 40), source.randint(30, 120)]) for _ in range(2))
    tile = source.choice([4, 8])
    net = small(tile * source.choice([2, 4, 6]), source.choice([0.0, source.uniform(0, 0.2)]))
    policy, one = Learned(net, tile, source.uniform(0.2, 0.999)), tile**2 / prod(size)
    image, asked = torch.rand(1, 3, *size), policy.budget + 1e-9
    least = policy.least_work(size)
    whole_blocks = prod(grid(size, net.block)) * net.block**2 / prod(size)
    assert least == pytest.approx(net.share * whole_blocks + Plan.uniform(1, size, tile, 1).work.item())
    method = SegBlocks(nn.Conv2d(3, 2, 1), policy).eval()
    with torch.no_grad():
        if least > asked + one:
            assert error_of(lambda: method(image)).startswith(
                f"budget is {policy.budget:g} of the dense work"
            )
            return
        trace, logits = method(image).trace, net(image)
    assert trace.work.item() == pytest.approx(
        least + (trace.plan.work - Plan.uniform(1, size, tile, 1).work).item()
    )
    assert trace.work.item() <= asked + one
    order = logits.flatten().sort(descending=True, stable=True).indices
    fine = trace.plan.levels[0, :: net.block // tile, :: net.block // tile].flatten() == 0
    count = int(fine.sum())
    assert bool(fine[order[:count]].all())
    if count < len(fine):
        fine[order[count]] = True
        more = tiles_of(fine.view_as(logits), policy, size) * one
        assert least - Plan.uniform(1, size, tile, 1).work.item() + more > policy.budget + one - 1e-9


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (50, 33)])
def test_the_decision_costs_what_it_is_counted_for(size: tuple[int, int]) -> None:
    """MACs that run, as a share of the dense network's per pixel, are the work of the trace's first step."""
    network, net, image = headless(), small(32), torch.rand(2, 3, *size)
    net.share = relative_macs(net, network, (64, 64))
    dense = count_macs(lambda: network(torch.rand(1, 3, 64, 64))).total / 64**2
    first, second = SegBlocks(network, Learned(net, 16, 0.6))(image).trace.steps
    assert (first.name, first.plan, second.name) == ("policy", None, "network")
    found = count_macs(lambda: net(image)).total / dense / prod(size)
    assert first.work.tolist() == pytest.approx([found / 2] * 2)
    assert net.share > 0.02


def test_the_whole_budget_needs_no_decision() -> None:
    policy, image = Learned(small(16, 0.1), 8, 1.0), torch.rand(2, 3, 33, 50)
    trace = SegBlocks(nn.Conv2d(3, 2, 1), policy)(image).trace
    assert [step.name for step in trace.steps] == ["network"]
    assert trace.plan.levels.max() == 0
    assert policy.least_work((33, 50)) == trace.work[0].item()


def test_flat_images_are_planned_alike_alone_and_in_a_batch() -> None:
    """All logits but those of the rim are equal: rounding must not decide."""
    images = torch.stack([torch.full((3, 128, 160), grey) for grey in (0.0, 0.3, 1.0)])
    policy = Learned(small(16), 8, 0.5)
    with torch.no_grad():
        together = policy(View(images)).levels
        for n in range(3):
            assert torch.equal(policy(View(images[n : n + 1])).levels[0], together[n])


def test_drawn_blocks_follow_their_probabilities() -> None:
    logits = torch.tensor([[[-2.0, 0.0], [1.0, 30.0]]])
    policy, view = Learned(by_logits(logits.expand(500, 2, 2), 16), 8), View(torch.rand(500, 3, 32, 32))
    draw = policy.draw(view)
    torch.testing.assert_close(draw.fine.float().mean(0), logits[0].sigmoid(), rtol=0, atol=0.08)
    expected = Plan.from_blocks((~draw.fine).to(torch.int8), 16, 8, (32, 32))
    assert torch.equal(draw.plan.levels, expected.levels)


# Errors


@pytest.mark.parametrize("tile", [0, -8, 5, 16, 32])
def test_a_block_holds_whole_squares_of_tiles(tile: int) -> None:
    message = error_of(lambda: Learned(small(16), tile))
    assert message == (
        f"block is 16 px and tile {tile}; the block of a learned policy holds 2x2, 4x4, ... tiles, give a "
        "tile such as 8"
    )


@pytest.mark.parametrize("budget", [0.0, -1.0, 1.5, float("nan")])
def test_a_budget_is_a_share(budget: float) -> None:
    assert "it must be above 0 and at most 1" in error_of(lambda: Learned(small(16), 8, budget))


def test_a_budget_below_the_cheapest_plan_is_refused() -> None:
    method = SegBlocks(nn.Conv2d(3, 2, 1), Learned(small(16, 0.1), 8, 0.3))
    assert error_of(lambda: method(torch.rand(1, 3, 64, 64))) == (
        "budget is 0.3 of the dense work, decision included; the cheapest plan, everything at half "
        "resolution, takes 0.35; raise the budget"
    )
