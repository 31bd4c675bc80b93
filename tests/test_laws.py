"""The laws of the tile engine: what must hold for any network, plan and size."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from foveal.geometry.plan import SKIP, Plan
from foveal.ops import compose_tiles, halve
from foveal.tiles import Memory, NetworkChanged, TileTensor, split
from networks import RandomNetwork
from strategies import plans, random_plan, random_size, sources

TILE = 16


def network_and_image(source: Random, context: bool = True) -> tuple[RandomNetwork, Tensor]:
    torch.manual_seed(source.randint(0, 2**30))
    size = random_size(source, TILE, 4)
    image = torch.randn(source.randint(1, 3), 3, *size, dtype=torch.float64)
    return RandomNetwork(source, context).double(), image


def size_of(image: Tensor) -> tuple[int, int]:
    return image.shape[2], image.shape[3]


def a_plan(source: Random, image: Tensor, skip: float = 0.0) -> Plan:
    return random_plan(source, len(image), size_of(image), TILE, source.randint(0, 2), skip)


def some_skipped(source: Random, plan: Plan, share: float) -> Plan:
    """Skip a share of the tiles of a plan, and keep the others as they are."""
    levels = plan.levels.clone()
    skipped = [b for b in range(len(plan.layout)) if source.random() < share]
    levels[torch.isin(plan.layout.owner, torch.tensor(skipped))] = SKIP
    return Plan(levels, plan.tile, plan.size)


def reduced(image: Tensor, level: int) -> Tensor:
    return halve(image, level)


def conv_macs(run: Any) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() // 2


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    assert found.shape == expected.shape
    scale = expected.abs().max().item() + 1e-30
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)


# Laws 1 and 2: everything at one level is the dense network on the image of that level


@settings(max_examples=60)
@given(source=sources())
def test_everything_at_level_0_is_the_dense_network(source: Random) -> None:
    network, image = network_and_image(source)
    plan = Plan.uniform(len(image), size_of(image), TILE)
    assert_close(network(split(image, plan)).dense(), network(image))


@settings(max_examples=60)
@given(source=sources())
def test_everything_at_a_level_is_the_dense_network_on_the_reduced_image(source: Random) -> None:
    network, image = network_and_image(source)
    level = source.randint(1, 3)
    out = network(split(image, Plan.uniform(len(image), size_of(image), TILE, level)))
    assert_close(compose_tiles(out.tiles, out.layout, level), network(reduced(image, level)))


@given(source=sources())
def test_single_precision_errs_as_little_as_the_dense_network(source: Random) -> None:
    network, image = network_and_image(source)
    exact = network(image)
    network, image = network.float(), image.float()
    unavoidable = (network(image).double() - exact).abs().max().item()
    found = network(split(image, Plan.uniform(len(image), size_of(image), TILE))).dense()
    assert (found.double() - exact).abs().max().item() <= 4 * unavoidable + 1e-6 * exact.abs().max().item()


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 97), (16, 1), (3, 5), (17, 16), (31, 33)])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_any_size_comes_back_at_its_own_size(level: int, size: tuple[int, int]) -> None:
    for seed in range(3):
        network = RandomNetwork(Random(seed)).double()
        image = torch.randn(2, 3, *size, dtype=torch.float64)
        out = network(split(image, Plan.uniform(2, size, TILE, level)))
        assert out.dense().shape == network(image).shape
        assert_close(compose_tiles(out.tiles, out.layout, level), network(reduced(image, level)))


# Law 3: spending less costs less


@given(source=sources())
def test_counted_macs_are_those_of_a_tile_times_the_tiles(source: Random) -> None:
    network, image = network_and_image(source, context=False)
    plan = a_plan(source, image, skip=source.choice([0.0, 0.5]))
    one = conv_macs(lambda: network(torch.zeros(1, 3, TILE, TILE, dtype=torch.float64)))
    assert conv_macs(lambda: network(split(image, plan))) == one * int(plan.tiles.sum())


@given(source=sources())
def test_counted_macs_do_not_depend_on_a_memory(source: Random) -> None:
    network, image = network_and_image(source, context=False)
    memory = remembered(network, image, a_plan(source, image)).memory()
    plan = a_plan(source, image, skip=0.5)
    without = conv_macs(lambda: network(split(image, plan)))
    assert conv_macs(lambda: network(split(image, plan, memory))) == without


@given(source=sources())
def test_counted_macs_never_rise_with_a_level(source: Random) -> None:
    network, image = network_and_image(source, context=False)
    macs = [
        conv_macs(lambda p=plan: network(split(image, p)))
        for plan in (Plan.uniform(len(image), size_of(image), TILE, level) for level in range(3))
    ]
    assert macs == sorted(macs, reverse=True)


# Law 5: images in a batch do not influence one another


@settings(max_examples=50)
@given(source=sources())
def test_an_image_gets_the_answer_that_it_gets_alone(source: Random) -> None:
    network, image = network_and_image(source)
    plan = a_plan(source, image, skip=source.choice([0.0, 0.3]))
    together = network(split(image, plan)).dense()
    for n, expected in enumerate(together):
        alone = Plan(plan.levels[n : n + 1], TILE, plan.size)
        found = network(split(image[n : n + 1], alone)).dense()[0]
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


# Law 6: what is skipped stays


def remembered(network: nn.Module, image: Tensor, plan: Plan, memory: Memory | None = None) -> TileTensor:
    """Run with memory, and compose, so that the answer is remembered too."""
    out = network(split(image, plan, memory, remember=True))
    out.dense()
    return out


def answer(network: nn.Module, image: Tensor, plan: Plan, memory: Memory | None) -> tuple[Tensor, Memory]:
    out = network(split(image, plan, memory, remember=True))
    dense = out.dense()
    after = out.memory()
    assert after is not None
    return dense, after


@settings(max_examples=60)
@given(source=sources())
def test_a_still_image_gives_the_same_answer_whatever_is_skipped(source: Random) -> None:
    network, image = network_and_image(source)
    plan = a_plan(source, image)
    expected, memory = answer(network, image, plan, None)
    for share in (source.random(), 0.5, 1.0):
        found, memory = answer(network, image, some_skipped(source, plan, share), memory)
        assert_close(found, expected)
        assert torch.equal(torch.bincount(memory.layout.level), torch.bincount(plan.layout.level))


@given(source=sources())
def test_a_still_image_costs_nothing_when_all_is_skipped(source: Random) -> None:
    network, image = network_and_image(source, context=False)
    expected, memory = answer(network, image, a_plan(source, image), None)
    nothing = Plan.uniform(len(image), size_of(image), TILE, SKIP)
    assert conv_macs(lambda: network(split(image, nothing, memory)).dense()) == 0
    assert_close(answer(network, image, nothing, memory)[0], expected)


@settings(max_examples=60)
@given(source=sources())
def test_what_was_refined_stays_refined(source: Random) -> None:
    """After passes that refine at random, a pass that skips all gives the last answer again."""
    network, image = network_and_image(source)
    coarse = Plan.uniform(len(image), size_of(image), TILE, source.randint(1, 3))
    memory, last = None, None
    for plan in (coarse, a_plan(source, image, 0.6), a_plan(source, image, 0.6)):
        last, memory = answer(network, image, plan, memory)
    nothing = Plan.uniform(len(image), size_of(image), TILE, SKIP)
    found, after = answer(network, image, nothing, memory)
    assert_close(found, last)
    assert after.bytes == memory.bytes


@given(source=sources())
def test_a_pass_that_computes_all_forgets_what_was(source: Random) -> None:
    network, image = network_and_image(source)
    _, memory = answer(network, -image, a_plan(source, image), None)
    _, memory = answer(network, image * 2, a_plan(source, image, 0.5), memory)
    everything = Plan.uniform(len(image), size_of(image), TILE)
    found, memory = answer(network, image, everything, memory)
    assert_close(found, network(image))
    assert memory.layout.levels == (0,)


@settings(max_examples=40)
@given(source=sources())
def test_refining_in_several_passes_is_dense_where_a_pass_saw_all_that_it_needs(source: Random) -> None:
    """A sample sees 2 px around it: inside a tile it is exact whenever its tile is refined."""
    torch.manual_seed(source.randint(0, 2**30))
    network = nn.Conv2d(3, 2, 5, padding=2).double()
    image = torch.randn(1, 3, *random_size(source, TILE, 4), dtype=torch.float64)
    whole = Plan.uniform(1, size_of(image), TILE)
    _, memory = answer(network, image, Plan.uniform(1, size_of(image), TILE, 1), None)
    turn = torch.randint(0, 3, whole.levels.shape)
    found = image
    for k in range(3):
        plan = Plan(torch.where(turn == k, 0, SKIP), TILE, whole.size)
        found, memory = answer(network, image, plan, memory)
    assert memory.layout.levels == (0,)
    expected = network(image)
    rows, columns = (torch.arange(n) % TILE for n in size_of(image))
    inner = (((rows >= 2) & (rows < TILE - 2))[:, None] & ((columns >= 2) & (columns < TILE - 2))).double()
    assert_close(found * inner, expected * inner)


@given(source=sources())
def test_refining_equals_a_mixed_plan_for_a_single_window(source: Random) -> None:
    """One convolution sees only the image, so it does not matter that coarse tiles came first."""
    torch.manual_seed(source.randint(0, 2**30))
    network = nn.Conv2d(3, 2, 5, padding=2).double()
    image = torch.randn(2, 3, *random_size(source, TILE, 4), dtype=torch.float64)
    mixed = random_plan(source, 2, size_of(image), TILE, 1)
    fine = Plan(torch.where(mixed.levels == 0, 0, SKIP), TILE, mixed.size)
    _, memory = answer(network, image, Plan.uniform(2, size_of(image), TILE, 1), None)
    found = network(split(image, fine, memory))
    expected = network(split(image, mixed))
    chosen = mixed.layout.level == 0
    torch.testing.assert_close(found.tiles, expected.tiles[chosen], rtol=1e-12, atol=1e-12)


def test_a_memory_of_another_size_number_or_tile_is_refused() -> None:
    network, image = RandomNetwork(Random(0)), torch.randn(2, 3, 32, 48)
    memory = remembered(network, image, Plan.uniform(2, (32, 48), TILE)).memory()
    for other, tile in ((torch.randn(2, 3, 32, 32), TILE), (image[:1], TILE), (image, 8)):
        plan = Plan.uniform(len(other), size_of(other), tile)
        with pytest.raises(
            ValueError, match=r"the memory is of 2 images of \(32, 48\) with tile 16, the plan is"
        ):
            split(other, plan, memory)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(3, 3, 3, padding=1)),
            "call 0 was conv2d of 3 channels, 16 samples a side, now max_pool2d of 3 channels",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 3, 3, padding=1)),
            "call 1 was conv2d of 3 channels, 16 samples a side, now conv2d of 5 channels",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.Conv2d(3, 3, 3, padding=1)),
            "call 1 was .* 16 samples a side, now conv2d of 3 channels, 8 samples a side; the network",
        ),
        (
            nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)]),
            "call 2 is conv2d of 3 channels, 16 samples a side, the memory ends before; start anew",
        ),
    ],
)
def test_a_memory_of_another_network_is_refused(second: nn.Module, message: str) -> None:
    first = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1))
    image, plan = torch.randn(1, 3, 32, 32), Plan.uniform(1, (32, 32), TILE)
    memory = first(split(image, plan, remember=True)).memory()
    with pytest.raises(NetworkChanged, match=message):
        second(split(image, plan, memory))


def test_nothing_is_recorded_unless_asked_for() -> None:
    image, plan = torch.randn(1, 3, 32, 32), Plan.uniform(1, (32, 32), TILE)
    assert split(image, plan).memory() is None
    memory = nn.Conv2d(3, 3, 3, padding=1)(split(image, plan, remember=True)).memory()
    assert memory.bytes == 4 * image.numel()


def test_averages_over_what_exists_count_remembered_neighbours() -> None:
    image, pool = torch.randn(1, 3, 29, 37), nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    whole = Plan.uniform(1, (29, 37), TILE)
    memory = remembered(pool, image, whole).memory()
    found = pool(split(image, some_skipped(Random(1), whole, 0.5), memory)).dense()
    assert_close(found, pool(image), 1e-6)


def test_a_memory_carries_no_gradients() -> None:
    network, image = RandomNetwork(Random(0)), torch.randn(1, 3, 32, 32)
    memory = remembered(network, image, Plan.uniform(1, (32, 32), TILE)).memory()
    assert not any(record.tiles.requires_grad for record in memory.records)


# Laws 7 and 8: values are pure, and repeat


@given(source=sources())
def test_no_call_changes_its_inputs(source: Random) -> None:
    network, image = network_and_image(source)
    _, memory = answer(network, image, a_plan(source, image), None)
    plan = a_plan(source, image, 0.5)
    tiles = split(image, plan, memory)
    values = [image, plan.levels, tiles.tiles, memory.layout.owner, *(r.tiles for r in memory.records)]
    values += network.state_dict().values()
    before = [value.clone() for value in values]
    network(tiles).dense()
    assert all(torch.equal(now, then) for now, then in zip(values, before, strict=True))


@given(source=sources())
def test_the_same_call_gives_the_same_bits(source: Random) -> None:
    network, image = network_and_image(source)
    plan = a_plan(source, image, 0.2)
    first, second = (
        network(split(image, Plan(plan.levels.clone(), TILE, plan.size))).dense() for _ in range(2)
    )
    assert torch.equal(first, second)


# Law 10: gradients


@settings(max_examples=30)
@given(source=sources())
def test_gradients_reach_every_parameter_as_in_the_dense_network(source: Random) -> None:
    network, image = network_and_image(source)
    weight = torch.randn_like(network(image))
    parameters = list(network.parameters())
    expected = torch.autograd.grad((network(image) * weight).sum(), parameters)
    out = network(split(image, Plan.uniform(len(image), size_of(image), TILE))).dense()
    for found, slope in zip(torch.autograd.grad((out * weight).sum(), parameters), expected, strict=True):
        assert_close(found, slope, 1e-9)


@settings(max_examples=30)
@given(source=sources())
def test_gradients_of_mixed_levels_and_skipped_tiles_are_finite_and_reach_all(source: Random) -> None:
    network, image = network_and_image(source)
    plan = a_plan(source, image, source.choice([0.0, 0.4]))
    if not plan.tiles.sum():
        return
    network(split(image, plan)).dense().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("seed", range(4))
def test_gradcheck_through_mixed_levels_and_skipped_tiles(seed: int) -> None:
    source, size = Random(seed), (11, 13)
    layers = [
        nn.Conv2d(1, 2, 3, 2, 1),
        nn.SiLU(),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.Conv2d(2, 2, 3, padding=2, dilation=2, groups=2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(2, 1, 1),
    ]
    network = nn.Sequential(*layers).double()
    plan = random_plan(source, 1, size, 4, 2, skip=0.2)
    image = torch.randn(1, 1, *size, dtype=torch.float64, requires_grad=True)
    weight = layers[0].weight.detach().clone().requires_grad_()

    def run(image: Tensor, weight: Tensor) -> Tensor:
        first = F.conv2d(split(image, plan), weight, None, 2, 1)
        out = network[1:](first)
        return (out * (1 + first.mean((2, 3), keepdim=True)[:, :1])).dense()

    assert torch.autograd.gradcheck(run, (image, weight))


@given(plan=plans((TILE,), coarsest=2, cells=3))
def test_training_updates_every_parameter_and_statistic(plan: Plan) -> None:
    network = RandomNetwork(Random(3)).train()
    image = torch.randn(len(plan.levels), 3, *plan.size)
    if plan.tiles.sum() < 4 or min(plan.size) < 16:
        return
    before = [buffer.clone() for buffer in network.buffers()]
    network(split(image, plan)).dense().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    assert all((now != then).any() for now, then in zip(network.buffers(), before, strict=True))
