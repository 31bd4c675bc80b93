"""What every method of the table must do, whatever it is; the numbers are those of the laws in DESIGN.md."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.cost import count_macs
from foveal.geometry.plan import grid
from foveal.methods import METHODS, Prediction, Request, SegBlocks, Segmenter
from foveal.ops import halve
from foveal.policies import RandomPlans, Uniform
from samples import error_of, headless, nano

NAMES = list(METHODS)
ADAPTIVE = [name for name in NAMES if name != "dense"]
CLASSES = 5


def make(name: str, network: nn.Module | None = None, **wishes: Any) -> Segmenter:
    network = nano() if network is None else network
    return METHODS[name].on_request(network, Request(**{"budget": 0.5, "coarsest": 1, **wishes})).eval()


@torch.no_grad()
def answer(method: Segmenter, image: Tensor) -> Prediction:
    return method(image)


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    scale = expected.abs().max().item() + 1e-12
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)


@pytest.fixture(params=NAMES)
def method(request: pytest.FixtureRequest) -> Segmenter:
    return make(request.param)


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, 80, 112)


# Law 1


@pytest.mark.parametrize("size", [(64, 64), (33, 47), (100, 70), (1, 97), (5, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_the_whole_budget_gives_the_dense_answer(name: str, size: tuple[int, int]) -> None:
    method, image = make(name, budget=1.0), torch.rand(2, 3, *size)
    prediction = answer(method, image)
    with torch.no_grad():
        dense = method.dense()(image)
    assert_close(prediction.logits, dense)
    assert torch.equal(prediction.labels, method.dense_labels(image))


def test_the_whole_budget_gives_the_dense_answer_in_double_precision(method: Segmenter) -> None:
    method = make(next(n for n, kind in METHODS.items() if type(method) is kind), budget=1.0).double()
    image = torch.rand(1, 3, 70, 50, dtype=torch.float64)
    prediction = answer(method, image)
    assert prediction.logits.dtype == torch.float64
    with torch.no_grad():
        assert_close(prediction.logits, method.dense()(image), 1e-12)


# Law 2


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("size", [(64, 64), (100, 70), (33, 129), (2, 3)])
def test_everything_at_a_level_is_the_dense_answer_on_the_reduced_image(
    size: tuple[int, int], level: int
) -> None:
    network, image = nano(), torch.rand(2, 3, *size)
    prediction = answer(SegBlocks(network, Uniform(32, level)), image)
    small = halve(image, level)
    with torch.no_grad():
        enlarged = F.interpolate(network(small), scale_factor=2**level, mode="bilinear", align_corners=False)
    height, width = prediction.logits.shape[2:]
    assert_close(prediction.logits, enlarged[:, :, :height, :width])


# Law 3


@pytest.mark.parametrize("name", NAMES)
def test_counted_macs_fall_with_the_budget(name: str) -> None:
    network, image = nano(), torch.rand(1, 3, 192, 256)
    budgets = (0.3, 0.45, 0.6, 0.8, 1.0)
    methods = [make(name, network, budget=budget) for budget in budgets]
    macs = [count_macs(lambda m=m: m(image)).convolution for m in methods]
    dense = count_macs(lambda: network(image)).convolution
    assert all(less <= more for less, more in pairwise(macs))
    assert macs[-1] == dense
    if name in ADAPTIVE:
        assert all(less < more for less, more in pairwise(macs))
        for budget, ours in zip(budgets[:-1], macs, strict=False):
            assert ours <= (budget + 0.1) * dense


@pytest.mark.parametrize("budget", [0.35, 0.6, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_counted_macs_are_those_of_the_trace(name: str, budget: float) -> None:
    network, image = headless(), torch.rand(2, 3, 128, 192)
    method = make(name, network, budget=budget, tile=16)
    steps = answer(method, image).trace.steps
    dense, tile = (
        count_macs(lambda size=size: network(torch.rand(1, 3, *size))).convolution
        for size in ((128, 192), (16, 16))
    )
    expected = 0
    for step in steps:
        if step.plan is None:
            expected += round(dense * float(step.work.sum()))
        else:
            expected += tile * int(step.plan.tiles.sum())
            assert torch.equal(step.work, step.plan.work)
    assert count_macs(lambda: method(image)).convolution == expected


# Law 4


@pytest.mark.parametrize("budget", [0.2, 0.4, 0.7, 0.95])
@pytest.mark.parametrize("size", [(128, 192), (150, 100), (97, 203)])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_budget_is_kept_for_every_image(name: str, size: tuple[int, int], budget: float) -> None:
    prediction = answer(make(name, headless(), budget=budget, tile=16, coarsest=2), torch.rand(3, 3, *size))
    assert float(prediction.trace.work.max()) <= budget + 16**2 / (size[0] * size[1]) + 1e-9
    assert len(prediction.trace.work) == 3


# Law 5


def test_images_of_a_batch_do_not_influence_one_another(method: Segmenter) -> None:
    images = torch.rand(3, 3, 100, 132)
    images[1] *= 0.2
    together = answer(method, images)
    for n in range(3):
        alone = answer(method, images[n : n + 1])
        for ours, theirs in zip(alone.trace.steps, together.trace.steps, strict=False):
            assert ours.work[0] == theirs.work[n]
            assert ours.plan is None or torch.equal(ours.plan.levels[0], theirs.plan.levels[n])
        assert_close(alone.logits[0], together.logits[n])
        assert torch.equal(alone.labels[0], together.labels[n])


# Law 6


def test_a_still_image_gives_the_same_answer_with_its_memory(method: Segmenter, image: Tensor) -> None:
    first = answer(method, image)
    with torch.no_grad():
        again = method(image, first.memory)
    assert_close(again.logits, first.logits)


# Law 7


def test_a_call_changes_neither_image_nor_weights(method: Segmenter, image: Tensor) -> None:
    before = image.clone()
    weights = copy.deepcopy(method.state_dict())
    prediction = answer(method, image)
    kept = prediction.logits.clone()
    _ = prediction.labels, answer(method, image.flip(0))
    assert torch.equal(image, before)
    assert torch.equal(prediction.logits, kept)
    for key, value in method.state_dict().items():
        assert torch.equal(value, weights[key])


def test_the_network_gives_the_same_dense_answer_once_a_method_has_it(image: Tensor) -> None:
    network = nano()
    with torch.no_grad():
        before = network(image)
        names = list(network.state_dict())
        for name in NAMES:
            make(name, network)
            assert torch.equal(network(image), before)
            assert list(network.state_dict()) == names


# Law 8


def test_the_same_call_gives_the_same_answer(method: Segmenter, image: Tensor) -> None:
    first = answer(method, image)
    torch.rand(7)
    second = answer(method, image)
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.trace.work, second.trace.work)


# Law 9


@pytest.mark.parametrize("size", [(1, 1), (1, 97), (97, 1), (2, 2), (33, 47), (64, 64), (31, 129)])
@pytest.mark.parametrize("name", NAMES)
def test_every_size_comes_back_at_its_size_or_the_budget_is_said_to_be_too_small(
    name: str, size: tuple[int, int]
) -> None:
    image = torch.rand(1, 3, *size)
    for budget in (0.4, 1.0):
        method = make(name, budget=budget)
        message = error_of(lambda m=method: answer(m, image))
        if message:
            assert budget < 1
            assert name != "dense"
            assert message.startswith("budget is ")
            assert "raise the budget" in message
            continue
        prediction = answer(method, image)
        assert prediction.labels.shape == (1, *size)
        assert prediction.labels.dtype == torch.uint8
        assert int(prediction.labels.max()) < CLASSES
        assert prediction.full_logits.shape == (1, CLASSES, *size)
        assert torch.equal(prediction.full_logits.argmax(1).to(torch.uint8), prediction.labels)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.full((1, 3, 8, 8), float("nan")), "images hold NaN or infinity; give finite numbers in 0..1"),
        (torch.full((1, 3, 8, 8), float("inf")), "images hold NaN or infinity"),
        (torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1) * float("inf"), "images hold NaN or infinity"),
        (torch.rand(1, 4, 8, 8), r"images are \[1, 4, 8, 8\]; give \[N, 3, H, W\]"),
        (torch.rand(1, 1, 8, 8), r"images are \[1, 1, 8, 8\]; give"),
        (torch.rand(3, 8, 8), r"images are \[3, 8, 8\]; give"),
        (torch.rand(0, 3, 8, 8), r"images are \[0, 3, 8, 8\]; .* nothing empty"),
        (torch.rand(1, 3, 0, 8), r"images are \[1, 3, 0, 8\]; give"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "images are torch.uint8; give floating point numbers"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "divide bytes by 255"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(method: Segmenter, bad: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answer(method, bad)
    with pytest.raises(ValueError, match=message):
        method.dense_labels(bad)


def test_one_nan_among_many_images_is_found(method: Segmenter) -> None:
    image = torch.rand(2, 3, 64, 64)
    image[1, 2, 63, 63] = float("nan")
    with pytest.raises(ValueError, match="images hold NaN"):
        answer(method, image)


def test_large_images_in_half_precision_are_not_taken_for_infinite() -> None:
    image = torch.ones(1, 3, 160, 160, dtype=torch.float16)
    prediction = answer(make("dense", nn.Conv2d(3, CLASSES, 1).half()), image)
    assert prediction.labels.shape == (1, 160, 160)


# Law 10


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_reaches_every_parameter_with_a_finite_gradient(method: Segmenter, training: bool) -> None:
    method.train(training)
    image, target = torch.rand(2, 3, 96, 96), torch.randint(0, CLASSES, (2, 96, 96))
    target[0, :10] = 255
    losses = method.loss(image, target)
    assert losses
    for loss in losses.values():
        assert loss.ndim == 0
        assert 0 < loss.item() < float("inf")
    sum(losses.values()).backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


def test_mixed_resolution_and_consistency_reach_every_parameter() -> None:
    method = SegBlocks(nano(), RandomPlans((32,), 1, (0.3, 0.6)), consistency=2.0).train()
    losses = method.loss(torch.rand(2, 3, 96, 96), torch.randint(0, CLASSES, (2, 96, 96)))
    assert set(losses) == {"dense", "mixed", "consistency"}
    for term in ("mixed", "consistency"):
        method.zero_grad()
        losses[term].backward(retain_graph=True)
        for name, parameter in method.named_parameters():
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), (term, name)
    assert float(losses["consistency"].detach()) > 0


def test_the_terms_of_full_resolution_agree() -> None:
    method = SegBlocks(nano(), Uniform(32), consistency=1.0)
    losses = method.loss(torch.rand(1, 3, 70, 90), torch.randint(0, CLASSES, (1, 70, 90)))
    assert losses["mixed"].item() == pytest.approx(losses["dense"].item(), abs=1e-5)
    assert losses["consistency"].item() == pytest.approx(0, abs=1e-8)


def test_nothing_but_void_leaves_only_what_needs_no_labels(method: Segmenter) -> None:
    losses = method.loss(torch.rand(1, 3, 64, 64), torch.full((1, 64, 64), 255))
    labelled = {name for name in losses if not name.endswith("consistency")}
    assert labelled
    assert all(float(losses[name].detach()) == 0 for name in labelled)


# Law 11


@pytest.mark.parametrize("name", NAMES)
def test_saved_weights_give_the_same_answer_in_another_instance(
    name: str, image: Tensor, tmp_path: Path
) -> None:
    method, other = make(name), make(name)
    save_file(method.state_dict(), tmp_path / "method.safetensors")
    expected = answer(method, image)
    assert not torch.equal(answer(other, image).logits, expected.logits)
    other.load_state_dict(load_file(tmp_path / "method.safetensors"))
    assert torch.equal(answer(other, image).logits, expected.logits)


def test_weights_of_the_dense_network_fit_the_network_in_a_method(method: Segmenter) -> None:
    plain = nano()
    method.network.load_state_dict(plain.state_dict())
    plain.load_state_dict(method.network.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_a_deep_copy_runs_on_its_own_weights(name: str, image: Tensor) -> None:
    method = make(name, budget=1.0)
    before = answer(method, image).logits
    twin = copy.deepcopy(method)
    assert torch.equal(answer(twin, image).logits, before)
    with torch.no_grad():
        for parameter in twin.network.head.context.parameters():
            parameter.add_(0.1)
    assert torch.equal(answer(method, image).logits, before)
    changed = answer(twin, image).logits
    assert not torch.allclose(changed, before, atol=1e-3)
    with torch.no_grad():
        assert_close(changed, twin.dense()(image))


@pytest.mark.parametrize("name", NAMES)
def test_plans_cover_the_image_of_the_prediction(name: str) -> None:
    prediction = answer(make(name, coarsest=2, budget=0.6), torch.rand(1, 3, 75, 130))
    assert prediction.size == (75, 130)
    for step in prediction.trace.steps:
        assert step.plan is None or tuple(step.plan.levels.shape[1:]) == grid((75, 130), step.plan.tile)
