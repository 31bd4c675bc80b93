from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.geometry.plan import grid
from foveal.policies import ScoredPolicy, View
from foveal.policies.uncertainty import entropy, margin, weighted_entropy
from samples import error_of
from studies.learned_scores import (
    BenefitHead,
    ThumbnailGain,
    cell_features,
    cell_means,
    fit_benefit,
    fit_thumbnail,
)

CLASSES = 5
SIZES = [(64, 96), (70, 101), (33, 20), (17, 130), (1, 1), (5, 200)]


def seen(images: int = 2, size: tuple[int, int] = (96, 128), stride: int = 4) -> View:
    """Images with patchy logits of a coarse pass."""
    rows, columns = grid(size, stride)
    patches = torch.randn(images, CLASSES, rows // 6 + 2, columns // 6 + 2) * 3
    logits = F.interpolate(patches, size=(rows, columns), mode="bilinear")
    return View(torch.rand(images, 3, *size), logits=logits)


def cells_of(view: View, tile: int) -> Tensor:
    """Features of all cells [M, F]."""
    return cell_features(view, tile).movedim(1, -1).flatten(0, -2)


def rule(view: View, tile: int) -> Tensor:
    """What is to be learned: a cell gains its entropy where class 3 is probable, and nothing elsewhere."""
    doubt, third = entropy(view), view.logits.softmax(1)[:, 3]
    return cell_means(doubt, view.size, tile) * (cell_means(third, view.size, tile) > 0.3)


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


def fitted(tile: int = 16, seed: int = 0, steps: int = 20) -> BenefitHead:
    view = seen()
    return fit_benefit(cells_of(view, tile), rule(view, tile).flatten(), tile, seed, steps)


# Features


@pytest.mark.parametrize("tile", [8, 16, 20, 32])
@pytest.mark.parametrize("size", SIZES)
def test_every_cell_has_its_features(size: tuple[int, int], tile: int) -> None:
    features = cell_features(seen(3, size), tile)
    assert features.shape == (3, CLASSES + 13, *grid(size, tile))
    assert bool(features.isfinite().all())


def test_features_are_means_over_the_cell_and_its_surroundings() -> None:
    view = seen(2, (96, 128))
    features = cell_features(view, 16)
    top = view.logits.softmax(1).amax(1)
    for index, density in enumerate((entropy(view), margin(view), weighted_entropy(view), top)):
        cells = F.avg_pool2d(density[:, None], 4)[:, 0]
        assert torch.allclose(features[:, index], cells, atol=1e-5)
        for offset, reach in ((4 + CLASSES, 1), (8 + CLASSES, 2)):
            here = float(cells[1, 3 - reach : 4 + reach, 4 - reach : 5 + reach].mean())
            assert float(features[1, offset + index, 3, 4]) == pytest.approx(here, abs=1e-5)
            corner = float(cells[1, : reach + 1, : reach + 1].mean())
            assert float(features[1, offset + index, 0, 0]) == pytest.approx(corner, abs=1e-5)
    assert features[:, 4 : 4 + CLASSES].sum(1).flatten().tolist() == pytest.approx([1.0] * 96, abs=1e-5)
    assert features[0, -1, :, 2].tolist() == pytest.approx([(n + 0.5) / 6 for n in range(6)])


def test_only_what_lies_in_the_image_counts_in_a_mean() -> None:
    density = torch.rand(1, 9, 13)
    means = cell_means(density, (9, 13), 8)
    assert float(means[0, 1, 1]) == pytest.approx(float(density[0, 8:, 8:].mean()))
    assert float(means[0, 0, 1]) == pytest.approx(float(density[0, :8, 8:].mean()))
    even = cell_means(torch.full((2, 9, 13), 0.7), (9, 13), 8)
    assert even.flatten().tolist() == pytest.approx([0.7] * 8)


# The benefit head


@pytest.mark.parametrize("tile", [8, 12, 16, 20, 32])
@pytest.mark.parametrize("size", SIZES)
def test_a_score_says_for_every_cell_what_the_head_says(size: tuple[int, int], tile: int) -> None:
    head, view = fitted(tile), seen(2, size)
    expected = head.gain(cell_features(view, tile).movedim(1, -1))
    found = cell_means(head(view), size, tile)
    assert found.shape == (2, *grid(size, tile))
    assert torch.allclose(found, expected, rtol=1e-4, atol=0)


def test_it_learns_a_rule_that_entropy_does_not_know() -> None:
    train, test = seen(12), seen(6)
    head = fit_benefit(cells_of(train, 16), rule(train, 16).flatten(), 16)
    goal, plain = rule(test, 16), cell_means(entropy(test), test.size, 16)
    assert correlation(cell_means(head(test), test.size, 16), goal) > 0.8
    assert correlation(plain, goal) < 0.6
    assert float(head(test).mean()) == pytest.approx(float(goal.mean()), rel=0.25)  # a gain, not only a rank


def test_gains_below_zero_are_learned_as_none() -> None:
    view = seen(8)
    gains = rule(view, 16).flatten() - 0.3
    head = fit_benefit(cells_of(view, 16), gains, 16, steps=100)
    found = head(view)
    assert float(found.min()) >= 0
    assert float(found.flatten()[gains < 0].mean()) < 0.1 < float(found.flatten()[gains > 0.3].mean())


def test_features_that_never_change_and_gains_that_are_all_zero_do_no_harm() -> None:
    cells = torch.rand(50, 18)
    cells[:, 3] = 0.25
    head = fit_benefit(cells, torch.zeros(50), steps=5)
    assert bool(head.gain(cells).isfinite().all())
    assert float(head.gain(cells).max()) < 1e-6


@torch.inference_mode()
def test_it_is_fitted_also_where_gradients_are_forbidden() -> None:
    assert not torch.equal(fitted(steps=5).layers[0].weight, fitted(steps=0).layers[0].weight)
    one, other = (fit_thumbnail([pictures(2)], 16, steps=steps) for steps in (0, 3))
    assert not torch.equal(one.layers[0].weight, other.layers[0].weight)


def test_bad_cells_are_refused() -> None:
    assert "cells are (4, 18) and gains (5,)" in error_of(
        lambda: fit_benefit(torch.rand(4, 18), torch.rand(5))
    )
    assert "at least one cell" in error_of(lambda: fit_benefit(torch.rand(0, 18), torch.rand(0)))
    wrong = torch.tensor([0.1, torch.nan])
    assert error_of(lambda: fit_benefit(torch.rand(2, 18), wrong)).startswith("1 of 2 numbers are not finite")
    assert "the logits of a coarse pass" in error_of(lambda: fitted()(View(torch.rand(1, 3, 32, 32))))
    other = View(torch.rand(1, 3, 32, 32), logits=torch.rand(1, CLASSES + 2, 8, 8))
    assert "fitted to 5 classes and the logits have 7" in error_of(lambda: fitted()(other))


# The thumbnail


def pictures(images: int, size: tuple[int, int] = (96, 128), tile: int = 16) -> tuple[Tensor, Tensor]:
    """Images of dark and bright cells, and gains: of bright cells, and of dark ones beside a bright one."""
    rows, columns = grid(size, tile)
    bright = (torch.rand(images, rows, columns) < 0.3).float()
    image = F.interpolate(bright[:, None], scale_factor=tile)[..., : size[0], : size[1]] * 0.6
    near = F.max_pool2d(bright[:, None], 3, 1, 1)[:, 0]
    image = image.expand(-1, 3, -1, -1) + 0.4 * torch.rand(images, 3, *size)
    return image, torch.stack([bright, 0.5 * near * (1 - bright)], 1)


@pytest.mark.parametrize("tile", [8, 12, 16, 20, 32])
@pytest.mark.parametrize("size", SIZES)
def test_a_thumbnail_gives_every_cell_and_step_a_gain(size: tuple[int, int], tile: int) -> None:
    head, view = ThumbnailGain(tile, steps=3), View(torch.rand(2, 3, *size))
    expected = head.gain(head.thumbnail(view.image))
    assert expected.shape == (2, 3, *grid(size, tile))
    maps = head(view)
    assert len(maps) == 3
    found = torch.stack([cell_means(gain, size, tile) for gain in maps], 1)
    assert float(found.min()) >= 0
    assert torch.allclose(found, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("size", [(64, 96), (70, 101)])
def test_a_sample_of_the_thumbnail_is_the_mean_of_the_image_over_it(size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)
    small = ThumbnailGain(32).thumbnail(image)
    rows, columns = grid(size, 32)
    assert small.shape == (1, 4, 4 * rows, 4 * columns)
    for row, column in ((0, 0), (3, 5), ((size[0] - 1) // 8, (size[1] - 1) // 8)):
        window = image[0, 1, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        assert float(small[0, 1, row, column]) == pytest.approx(float(window.mean()) - 0.5, abs=1e-6)
        assert float(small[0, 3, row, column]) == pytest.approx((8 * row + 4) / size[0] - 0.5)


def test_a_cell_sees_its_neighbours_alike_on_all_sides() -> None:
    head = ThumbnailGain(16, steps=1)
    image = torch.full((1, 3, 240, 240), 0.5)
    image[:, :, 112:128, 112:128] = 1.0
    changed = (head.gain(head.thumbnail(image)) - head.gain(head.thumbnail(image * 0 + 0.5)))[0, 0].abs() > 0
    rows, columns = (changed.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    assert rows[0] + rows[-1] == columns[0] + columns[-1] == 14


def test_it_learns_from_images_of_several_sizes() -> None:
    examples = [pictures(12), pictures(12), pictures(8, (70, 100))]
    head = fit_thumbnail(iter(examples), 16, steps=250)
    image, gains = pictures(6)
    found = head(View(image))
    for step in range(2):
        assert correlation(cell_means(found[step], (96, 128), 16), gains[:, step]) > 0.8
        assert float(found[step].mean()) == pytest.approx(float(gains[:, step].mean()), rel=0.2)


def test_bad_examples_are_refused() -> None:
    image, gains = pictures(2)
    for wrong in (gains[:, 0], gains[:1], gains[:, :, 1:]):
        message = error_of(lambda wrong=wrong: fit_thumbnail([(image, wrong)], 16))
        assert f"gains are {tuple(wrong.shape)}" in message
        assert "give [2, steps, 6, 8]" in message
    assert "for [] steps; give at least one example" in error_of(lambda: fit_thumbnail([], 16))
    assert "for [1, 2] steps" in error_of(lambda: fit_thumbnail([(image, gains), (image, gains[:, :1])], 16))
    assert "not finite" in error_of(lambda: fit_thumbnail([(image, gains / 0)], 16))
    for options in ({"tile": 18}, {"tile": 0}, {"steps": 0}):
        assert "a multiple of 4 px" in error_of(lambda options=options: ThumbnailGain(**options))


# Both


def make(name: str, seed: int = 0) -> nn.Module:
    if name == "head":
        return fitted(seed=seed)
    return fit_thumbnail([pictures(3)], 16, seed, steps=5, batch=2)


def answer(score: nn.Module, view: View) -> Tensor:
    found = score(view)
    return found if isinstance(found, Tensor) else torch.stack(found)


@pytest.mark.parametrize("name", ["head", "thumbnail"])
def test_the_same_seed_gives_the_same_score_and_leaves_other_random_numbers_alone(name: str) -> None:
    scores, after = [], []
    for seed in (3, 3, 4):
        torch.manual_seed(0)
        scores.append(make(name, seed).state_dict())
        after.append(float(torch.rand(())))
    one, other, third = scores
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert any(not torch.equal(one[key], third[key]) for key in one)
    assert len(set(after)) == 1


def test_examples_draw_from_the_random_numbers_of_the_caller() -> None:
    image, gains = pictures(2)
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        fit_thumbnail((drawn.append(float(torch.rand(()))) or (image, gains) for _ in range(2)), 16, steps=1)
    torch.manual_seed(2)
    assert drawn[2:] == [float(torch.rand(())) for _ in range(2)] != drawn[:2]


@pytest.mark.parametrize("name", ["head", "thumbnail"])
def test_a_score_comes_back_from_its_config_and_state(name: str) -> None:
    score, view = make(name), seen()
    again = type(score)(**score.config)
    assert not torch.equal(answer(again, view), answer(score, view))
    again.load_state_dict(score.state_dict())
    assert torch.equal(answer(again, view), answer(score, view))


@pytest.mark.parametrize("name", ["head", "thumbnail"])
def test_images_do_not_influence_one_another_and_nothing_is_to_be_trained(name: str) -> None:
    score, view = make(name), seen(3)
    alone = View(view.image[1:2], logits=view.logits[1:2])
    both = answer(score, view)
    assert not both.requires_grad
    one = both[1:2] if name == "head" else both[:, 1:2]
    assert one.flatten().tolist() == pytest.approx(answer(score, alone).flatten().tolist(), rel=1e-5)


def test_the_head_plans_from_a_coarse_answer() -> None:
    train, test = seen(8), seen(2)
    head = fit_benefit(cells_of(train, 16), rule(train, 16).flatten(), 16, steps=100)
    plan, goal = ScoredPolicy(head, 0.6, 16, 2)(test), rule(test, 16)
    sharp = plan.levels == 0
    assert 0.2 < float(sharp.float().mean()) < 0.6
    assert float(goal[sharp].mean()) > 3 * float(goal[~sharp].mean())


def test_the_thumbnail_plans_without_a_look() -> None:
    image, gains = pictures(8)
    score = fit_thumbnail([(image, gains)], 16, steps=60)
    street = 0.4 * torch.rand(1, 3, 96, 128)
    street[..., :32] += 0.6
    plan = ScoredPolicy(score, 0.4, 16, 2)(View(street))
    sharp = (plan.levels[0] == 0).any(0).nonzero().flatten().tolist()
    assert sharp
    assert set(sharp) <= {0, 1, 2, 3}  # two columns of cells are bright, and two beside them are near
