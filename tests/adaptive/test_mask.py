from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import foveal
from foreign import Attending, Strided, UNet, lively, picture
from foveal.adaptive import AdaptiveModel
from foveal.methods import CoarseToFine, CoarseToFineConfig

SIZE = (256, 352)


def corner(count: int = 1) -> Tensor:
    mask = torch.zeros(count, *SIZE, dtype=torch.bool)
    mask[:, :100, :120] = True
    return mask


@pytest.fixture(scope="module", params=["compiled", "layers", "segblocks", "segblocks layers"])
def model(request: pytest.FixtureRequest) -> AdaptiveModel:
    network: nn.Module = Attending() if "layers" in request.param else UNet()
    method = "segblocks" if "segblocks" in request.param else "coarse_to_fine"
    made = foveal.adapt(lively(network), method=method)
    assert (made.engine.program is None) == ("layers" in request.param)
    return made


@pytest.mark.parametrize("budget", [0.4, 0.8, 1.0])
def test_masked_places_cost_nothing_and_have_no_label(model: AdaptiveModel, budget: float) -> None:
    image, mask = picture(size=SIZE, count=2), corner(2)
    out, whole = model(image, budget=budget, mask=mask), model(image, budget=budget)
    assert torch.equal(out.labels == 255, ~mask)
    assert torch.equal(out.confidence > 0, mask)
    cells = torch.zeros(2, 8, 11, dtype=torch.bool)
    cells[:, :4, :4] = True
    assert torch.equal(out.levels >= 0, cells)
    assert (out.work < whole.work).all()
    assert out.macs < model(image, budget=1.0).macs


def test_cells_may_be_given(model: AdaptiveModel) -> None:
    image, cells = picture(size=SIZE), torch.zeros(1, 8, 11, dtype=torch.bool)
    cells[:, 2:4, 3:5] = True
    out = model(image, budget=1.0, mask=cells)
    assert torch.equal(out.labels != 255, cells.repeat_interleave(32, 1).repeat_interleave(32, 2))
    assert float(out.work[0]) == pytest.approx(4 * 32 * 32 / (SIZE[0] * SIZE[1]))


def test_a_share_decides_which_tiles_are_wanted(model: AdaptiveModel) -> None:
    image, mask = picture(size=SIZE), torch.zeros(*SIZE, dtype=torch.bool)
    mask[:32, :40] = True  # all of one tile and a quarter of the next
    assert int((model(image, budget=1.0, mask=mask).levels >= 0).sum()) == 2
    out = model(image, budget=1.0, mask=mask, mask_share=0.3)
    assert int((out.levels >= 0).sum()) == 1
    assert int((out.labels != 255).sum()) == 32 * 32
    with pytest.raises(ValueError, match=r"mask_share is 1\.0; give a share from 0 to below 1"):
        model(image, budget=1.0, mask=mask, mask_share=1.0)


def test_one_image_of_a_batch_may_be_left_out(model: AdaptiveModel) -> None:
    image, mask = picture(size=SIZE, count=2), corner(2)
    mask[0] = False
    out = model(image, budget=0.5, mask=mask)
    assert bool((out.labels[0] == 255).all())
    alone = model(image[1:], budget=0.5, mask=mask[1:])
    assert torch.equal(out.labels[1:], alone.labels)


def test_nothing_wanted_is_nothing_run(model: AdaptiveModel) -> None:
    out = model(picture(size=SIZE), budget=0.4, mask=torch.zeros(1, *SIZE, dtype=torch.bool))
    assert bool((out.labels == 255).all())
    assert float(out.work) == out.macs == 0
    assert not out.confidence.any()
    with pytest.raises(ValueError, match="no logits were computed: the mask wants nothing"):
        _ = out.logits


def test_what_is_wanted_in_full_is_the_dense_answer(model: AdaptiveModel) -> None:
    image = picture(size=SIZE)
    dense = model(image, budget=1.0)
    out = model(image, budget=1.0, mask=torch.ones(1, *SIZE, dtype=torch.bool))
    torch.testing.assert_close(out.logits, dense.logits, atol=1e-4, rtol=1e-4)


def test_far_from_the_edge_of_a_mask_nothing_changes() -> None:
    model, image = foveal.adapt(lively(Strided())), picture(size=SIZE)
    dense = model(image, budget=1.0)
    out = model(image, budget=1.0, mask=corner())
    torch.testing.assert_close(out.logits[:, :, :80, :80], dense.logits[:, :, :80, :80], atol=1e-4, rtol=1e-4)


def test_a_mask_and_a_list_of_images() -> None:
    model = foveal.adapt(lively(Strided()))
    images, masks = (
        [picture(size=SIZE)[0], picture(size=(64, 64))[0]],
        [corner()[0], torch.ones(64, 64).bool()],
    )
    found = model(images, budget=0.5, mask=masks)
    assert torch.equal(found[0].labels[0] != 255, masks[0])
    assert bool((found[1].labels != 255).all())


def test_dense_takes_no_plan_but_a_mask() -> None:
    model = foveal.adapt(lively(Strided()), method="dense")
    out = model(picture(size=SIZE), budget=1.0, mask=corner())
    assert torch.equal(out.labels[0] != 255, corner()[0])
    assert out.reason.startswith("method dense takes no mask; the network runs on tiles at full resolution")


def test_a_mask_as_people_have_it(tmp_path: Path) -> None:
    model, image, wanted = foveal.adapt(lively(Strided())), picture(size=SIZE), corner()
    drawn = Image.fromarray((wanted[0].numpy() * 200).astype(np.uint8))
    drawn.save(tmp_path / "mask.png")
    expected = model(image, budget=0.5, mask=wanted)
    for given in (str(tmp_path / "mask.png"), tmp_path / "mask.png", drawn, np.array(drawn), wanted.numpy()):
        out = model(image, budget=0.5, mask=given)
        assert torch.equal(out.labels, expected.labels)
        assert torch.equal(out.levels, expected.levels)
    assert torch.equal(model([image], budget=0.5, mask=[drawn])[0].labels, expected.labels)
    with pytest.raises(ValueError, match="field does not exist"):
        model(image, budget=0.4, mask="field")
    with pytest.raises(ValueError, match="mask is a str; give a list with one mask per image"):
        model([image], budget=0.4, mask="field")


@pytest.mark.parametrize("mask", [torch.ones(1, 5, 5).bool(), torch.ones(1, *SIZE), [[True]]])
def test_what_is_no_mask_is_refused(mask: Any) -> None:
    model = foveal.adapt(lively(Strided()))
    says = r"mask is .*; give a bool .* pixels \[1, 256, 352\], or of the wanted cells \[1, 8, 11\]"
    with pytest.raises(ValueError, match=says):
        model(picture(size=SIZE), budget=0.4, mask=mask)


BORDERED = ["compiled", "layers"]


@pytest.mark.parametrize("model", BORDERED, indirect=True)
@pytest.mark.parametrize("budget", [0.5, 1.0])
def test_the_border_of_a_mask_may_come_from_a_coarse_pass(model: AdaptiveModel, budget: float) -> None:
    image, mask = picture(size=SIZE), torch.zeros(1, *SIZE, dtype=torch.bool)
    mask[:, :128, :128] = True
    edge = model(image, budget=budget, mask=mask)
    coarse = model(image, budget=budget, mask=mask, mask_border="coarse")
    assert torch.equal(coarse.labels == 255, ~mask)
    assert torch.equal(coarse.levels >= 0, edge.levels >= 0)
    assert torch.equal(model(image, budget=budget, mask=mask, mask_border="edge").labels, edge.labels)
    tiles = (float(coarse.work[0] - edge.work[0]) * SIZE[0] * SIZE[1]) / 32**2
    around = 3  # tiles of 128 px beside the first
    assert tiles == pytest.approx(around) if budget == 1 else 0 <= tiles <= around

    if budget == 1:
        dense, beside = model(image, budget=1.0).logits, mask.clone()
        beside[:, :112, :112] = False
        error = [(out.logits - dense).abs().amax(1)[beside].mean() for out in (coarse, edge)]
        assert error[0] < 0.6 * error[1], "a coarse pass borders better than nothing"


@pytest.mark.parametrize("schedule", ["levels", "direct"])
@pytest.mark.parametrize("budget", [0.35, 1.0])
@torch.no_grad()
def test_a_program_borders_masks_as_the_layers_do(budget: float, schedule: str) -> None:
    engine, image = foveal.adapt(lively(UNet())).engine, picture(size=SIZE, count=2)
    wanted = torch.rand(2, 8, 11, generator=torch.Generator().manual_seed(3)) < 0.3
    config = CoarseToFineConfig(budget, schedule=schedule, mask_border="coarse")
    layers = CoarseToFine.from_config(engine.network, config).eval().masked(image, wanted)
    program = engine.make("coarse_to_fine", config).masked(image, wanted)
    assert torch.equal(program.trace.work, layers.trace.work)
    there = wanted.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None].expand(-1, 4, -1, -1)
    ours, theirs = (found.full_logits[there] for found in (program, layers))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("model", BORDERED, indirect=True)
def test_a_border_costs_no_more_than_what_is_left_out(model: AdaptiveModel) -> None:
    image, mask = picture(size=SIZE), torch.ones(1, *SIZE, dtype=torch.bool)
    whole = model(image, budget=1.0, mask=mask)
    assert torch.equal(model(image, budget=1.0, mask=mask, mask_border="coarse").logits, whole.logits)
    mask[:, 128:160, 160:192] = False
    out = model(image, budget=1.0, mask=mask, mask_border="coarse")
    assert float(out.work) == float(whole.work), "one tile of the coarse pass for the one left out"


def test_borders_that_there_are_not_are_refused() -> None:
    model, image = foveal.adapt(lively(Strided()), method="segblocks"), picture(size=SIZE)
    with pytest.raises(ValueError, match="no mask_border named 'fine'; available: edge, coarse"):
        model(image, budget=0.4, mask=corner(), mask_border="fine")
    with pytest.raises(ValueError, match="mask_border is coarse, and method segblocks has no first pass"):
        model(image, budget=0.4, mask=corner(), mask_border="coarse")
