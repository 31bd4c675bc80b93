"""What has no rule for tiles is refused, with the reason and the remedy."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from foveal.geometry.plan import Plan
from foveal.tiles import NoTileRule, run_dense, split
from tile_rules import RAGGED, Run, image

NO_RULE = "has no rule for tiles; name the module that calls it in `dense_modules`"


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (nn.Flatten(), r"flatten of axes \(N, C, H, W\) to .* hold channels and samples together"),
        (nn.LayerNorm([4, 13, 21]).double(), r"layer_norm over the last 3 of the axes \(N, C, H, W\)"),
        (lambda x: x.mean(3), "mean other than over the image or over channels " + NO_RULE),
        (lambda x: x.mean(), "mean other than over the image"),
        (lambda x: x.sum((2, 3)), "sum along another dimension than the channels " + NO_RULE),
        (lambda x: x.softmax(3), "softmax along another dimension than the channels " + NO_RULE),
        (lambda x: x.chunk(2), "chunk along another dimension than the channels " + NO_RULE),
        (lambda x: torch.cat([x, x], 2), "cat along another dimension than the channels " + NO_RULE),
        (
            lambda x: torch.cat([x, torch.ones(2, 1, 1, 1)], 1),
            r"cat of tiles with a plain tensor of \(2, 1, 1",
        ),
        (
            lambda x: torch.cat([torch.ones(2, 1, 9, 9), x], 1),
            r"cat of tiles with a plain tensor of \(2, 1, 9",
        ),
        (
            lambda x: F.interpolate(x, size=(20, 30)),
            r"interpolate from \(13, 21\) to \(20, 30\), which is the size of no map of the image of 13x21",
        ),
        (lambda x: F.interpolate(x, size=(13, 42)), "size of no map of the image"),
        (lambda x: F.interpolate(x, scale_factor=0.5), "interpolate by 0.5 from .*, which is no multiple of"),
        (lambda x: F.interpolate(x, scale_factor=(2, 1)), r"interpolate by \(2, 1\) " + NO_RULE),
        (lambda x: F.interpolate(x, scale_factor=2), "interpolate by 2 from stride 1, to what is no whole"),
        (lambda x: F.interpolate(x, scale_factor=0.3), "interpolate by 0.3 from stride 1, to what is no"),
        (lambda x: F.interpolate(x, scale_factor=2, mode="area"), "interpolate with mode='area'"),
        (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), "interpolate with mode='bicubic'"),
        (lambda x: F.interpolate(x, size=(7, 11), mode="bilinear", antialias=True), "and antialias"),
        (lambda x: F.pixel_shuffle(x, 2), "pixel_shuffle beyond the image's resolution " + NO_RULE),
        (
            nn.ConvTranspose2d(4, 4, 2, 2).double(),
            "conv_transpose2d beyond the image's resolution " + NO_RULE,
        ),
        (
            nn.ConvTranspose2d(4, 4, 3, 2).double(),
            "conv_transpose2d that does not grow the map by its stride",
        ),
        (nn.ConvTranspose2d(4, 4, 2, (2, 1)).double(), "conv_transpose2d"),
        (
            nn.Conv2d(4, 4, 3).double(),
            r"conv2d with kernel \(3, 3\), .* on a map of \(13, 21\): the result is not the",
        ),
        (nn.Conv2d(4, 4, 2, 2).double(), "by the stride, rounded up; pad the image to multiples of 2 px$"),
        (nn.Conv2d(4, 4, 3, padding=2).double(), "conv2d with kernel"),
        (nn.Conv2d(4, 4, 3, (2, 1), 1).double(), r"conv2d with stride \(2, 1\)"),
        (nn.MaxPool2d(3, 2), "max_pool2d with kernel"),
        (nn.MaxPool2d(2, return_indices=True), "max_pool2d with indices|max_pool2d_with_indices"),
        (nn.AvgPool2d(2), "avg_pool2d"),
        (nn.ReflectionPad2d(1), "padding with something else than zeros " + NO_RULE),
        (nn.ConstantPad2d(1, 3.0), "padding with something else than zeros " + NO_RULE),
        (lambda x: F.pad(x, (-1, 0)), "padding with something else than zeros " + NO_RULE),
        (lambda x: F.pad(x, (0, 0, 0, 0, 0, 1)), "padding with something else than zeros " + NO_RULE),
        (
            lambda x: F.pad(x, (1, 1)).relu(),
            "another operation than conv2d or pooling after an explicit padding",
        ),
        (lambda x: F.pad(x, (1, 1)) * 2, "or with padding"),
        (lambda x: F.pad(x, (1, 1)) + F.pad(x, (1, 1)), "or with padding " + NO_RULE),
        (lambda x: F.pad(F.pad(x, (1, 1)), (1, 1)), "after an explicit padding"),
        (lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1), "max_pool2d after an explicit padding"),
        (
            lambda x: F.conv2d(F.pad(x, (1, 1)), x.tiles.new_ones(4, 4, 3, 3), padding=1),
            "conv2d with padding after an explicit padding " + NO_RULE,
        ),
        (
            lambda x: F.conv2d(F.pad(x, (1, 0, 1, 0)), x.tiles.new_ones(4, 4, 1, 1), stride=2),
            "conv2d with a padding that is wider than its kernel reaches " + NO_RULE,
        ),
        (lambda x: x + torch.ones(2, 4, 13, 20), r"add of tiles with a plain tensor of \(2, 4, 13, 20\) "),
        (lambda x: x * torch.ones(4), r"mul of tiles with a plain tensor of \(4,\) " + NO_RULE),
        (lambda x: x + F.max_pool2d(x, 3, 2, 1), "add of maps with strides 2 and 1"),
        (lambda x: x[0], "indexing other than channels " + NO_RULE),
        (lambda x: x[:, [0, 2]], "indexing channels by something else than numbers and slices " + NO_RULE),
        (lambda x: x[:, ..., :3], "indexing other than channels " + NO_RULE),
        (lambda x: x[:, :, 1:], "indexing other than channels " + NO_RULE),
        (lambda x: x[..., :-1], "indexing other than channels " + NO_RULE),
        (lambda x: x[:, :, ::2, ::2], "indexing other than channels " + NO_RULE),
        (lambda x: x[None], "indexing other than channels " + NO_RULE),
        (lambda x: torch.einsum("nchw->nc", x), "einsum " + NO_RULE),
        (lambda x: torch.matmul(x, x), "matmul of two maps, which mixes samples, " + NO_RULE),
        (lambda x: x.norm(), "norm " + NO_RULE),
    ],
)
def test_what_has_no_rule_is_named_with_the_remedy(run: Run, message: str) -> None:
    with pytest.raises(NoTileRule, match=message):
        run(split(image(), Plan.uniform(2, RAGGED, 8)))


def test_torch_batch_norm_with_its_other_order_of_arguments_is_not_mistaken() -> None:
    ones, zeros = torch.ones(4).double(), torch.zeros(4).double()
    with pytest.raises(NoTileRule, match="batch_norm " + NO_RULE):
        x = split(image(), Plan.uniform(2, RAGGED, 8))
        torch.batch_norm(x, 2 * ones, ones, zeros, ones, False, 0.1, 1e-5, False)


def test_tiles_of_different_plans_are_not_mixed() -> None:
    x = image()
    with pytest.raises(NoTileRule, match="add of tiles of different plans " + NO_RULE):
        split(x, Plan.uniform(2, RAGGED, 8)) + split(x, Plan.uniform(2, RAGGED, 8, 1))
    with pytest.raises(NoTileRule, match="tiles of different plans"):
        torch.cat([split(x, Plan.uniform(2, RAGGED, 8)), split(x, Plan.uniform(2, RAGGED, 4))], 1)


def test_a_tile_that_is_no_multiple_of_the_stride_is_refused() -> None:
    layer = nn.Conv2d(4, 4, 3, 2, 1).double()
    with pytest.raises(
        NoTileRule,
        match=r"stride \(2, 2\) on tiles of 3 samples \(tile 6 at stride 2\); choose a tile that is a mul",
    ):
        layer(layer(split(image(), Plan.uniform(2, RAGGED, 6))))


@pytest.mark.parametrize("name", ["is_cuda", "is_quantized", "T", "names", "nonsense", "grad"])
def test_attributes_without_meaning_are_missing(name: str) -> None:
    with pytest.raises(AttributeError, match=f"a TileTensor has no attribute '{name}'"):
        getattr(split(image(), Plan.uniform(2, RAGGED, 8)), name)


@pytest.mark.parametrize("size", [(16, 16), RAGGED])
def test_images_of_another_size_or_number_do_not_fit_a_plan(size: tuple[int, int]) -> None:
    plan = Plan.uniform(2, (16, 24), 8)
    with pytest.raises(ValueError, match=f"2 images of 16x24, given 3 of {size[0]}x{size[1]}"):
        split(image(size, images=3), plan)


def test_a_map_with_pending_padding_is_not_composed() -> None:
    x = split(torch.rand(1, 3, 32, 32), Plan.uniform(1, (32, 32), 16))
    with pytest.raises(NoTileRule, match="explicit padding"):
        F.pad(x, (0, 1, 0, 1)).dense()
    with pytest.raises(NoTileRule, match="explicit padding"):
        run_dense(nn.Identity())(F.pad(x, (0, 1, 0, 1)))
