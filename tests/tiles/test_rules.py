from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.geometry.plan import SKIP, Plan
from foveal.ops import halve
from foveal.tiles import NoTileRule, TileTensor, run_dense, split
from strategies import plans, sources

Run = Callable[[Any], Any]
SIZES = [(16, 24), (13, 21), (9, 8), (1, 5)]
RAGGED = (13, 21)


def image(size: tuple[int, int] = RAGGED, images: int = 2, channels: int = 4) -> Tensor:
    return torch.randn(images, channels, *size, dtype=torch.float64)


def assert_equals_dense(run: Run, x: Tensor, tile: int = 8) -> None:
    """On tiles that are all at level 0 a function gives what it gives on the dense map."""
    expected = run(x)
    found = run(split(x, Plan.uniform(len(x), tuple(x.shape[2:]), tile)))
    assert found.shape == expected.shape
    found = found.dense() if isinstance(found, TileTensor) else found
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


# Convolution


def random_convolution(source: Random, stride: int) -> nn.Conv2d:
    """Any convolution whose result has the map's side divided by the stride, rounded up."""
    kernels = [source.choice([1, 3, 5, 7]) for _ in range(2)]
    dilations = [source.choice([1, 1, 2, 3]) for _ in range(2)]
    channels, groups = source.choice([(4, 1), (8, 1), (8, 2), (8, 4), (4, 4)])
    reach = [d * (k - 1) for k, d in zip(kernels, dilations, strict=True)]
    return nn.Conv2d(
        4,
        channels,
        kernels,
        stride,
        [r // 2 for r in reach],
        dilations,
        groups,
        bias=source.random() < 0.5,
    ).double()


@settings(max_examples=60)
@given(source=sources())
def test_conv2d(source: Random) -> None:
    stride = source.choice([1, 1, 2, 4])
    size = source.randint(1, 26), source.randint(1, 26)
    assert_equals_dense(random_convolution(source, stride), image(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", range(1, 8))
@pytest.mark.parametrize("dilation", [1, 2])
def test_conv2d_with_padding_same(dilation: int, kernel: int, size: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of the copy that an even kernel needs
        assert_equals_dense(nn.Conv2d(4, 3, kernel, padding="same", dilation=dilation).double(), image(size))


@pytest.mark.parametrize("size", [(16, 24), (8, 40)])
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (4, 4), (1, 2), (1, 4), (3, 4), (2, 4)])
def test_conv2d_without_padding_on_whole_strides(kernel: int, stride: int, size: tuple[int, int]) -> None:
    assert_equals_dense(nn.Conv2d(4, 3, kernel, stride).double(), image(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolution(stride: int, size: tuple[int, int]) -> None:
    assert_equals_dense(nn.Conv2d(4, 4, 5, stride, 2, groups=4).double(), image(size))


@pytest.mark.parametrize("size", [*SIZES, (15, 18), (2, 3)])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (3, 1, 2), (2, 2, 1)])
def test_explicit_same_padding_before_a_convolution(
    kernel: int, stride: int, dilation: int, size: tuple[int, int]
) -> None:
    layer = nn.Conv2d(4, 3, kernel, stride, dilation=dilation).double()

    def run(x: Any) -> Any:
        height, width = (
            max((-(-side // stride) - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
            for side in x.shape[2:]
        )
        return layer(F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))

    assert_equals_dense(run, image(size))


def test_explicit_padding_of_the_width_only() -> None:
    layer = nn.Conv2d(4, 3, (1, 3)).double()
    assert_equals_dense(lambda x: layer(F.pad(x, (1, 1))), image())


def test_a_convolution_sees_zeros_outside_whatever_the_tiles_hold_there() -> None:
    layer = nn.Conv2d(4, 3, 3, padding=1).double()
    assert_equals_dense(lambda x: layer(x + 7), image())
    assert_equals_dense(lambda x: layer(F.max_pool2d(x.log(), 3, 1, 1)), image().abs())


@pytest.mark.parametrize("size", [(16, 24), (12, 20)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "extra"),
    [(2, 2, 0, 0), (4, 2, 1, 0), (3, 2, 1, 1), (1, 2, 0, 1), (3, 1, 1, 0), (8, 4, 2, 0), (2, 4, 0, 2)],
)
def test_conv_transpose2d(kernel: int, stride: int, padding: int, extra: int, size: tuple[int, int]) -> None:
    layer = nn.ConvTranspose2d(4, 6, kernel, stride, padding, extra, groups=2).double()
    assert_equals_dense(lambda x: layer(F.max_pool2d(x, stride, stride)), image(size))


# Pooling


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (3, 1), (5, 1), (1, 1), (1, 2)])
def test_max_pool2d(kernel: int, stride: int, size: tuple[int, int]) -> None:
    layer = nn.MaxPool2d(kernel, stride, kernel // 2)
    assert_equals_dense(lambda x: layer(x - 9), image(size))


@pytest.mark.parametrize("size", SIZES)
def test_max_pool2d_in_ceil_mode(size: tuple[int, int]) -> None:
    assert_equals_dense(lambda x: nn.MaxPool2d(2, ceil_mode=True)(x - 9), image(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_avg_pool2d_with_padding(stride: int, counted: bool, size: tuple[int, int]) -> None:
    assert_equals_dense(nn.AvgPool2d(3, stride, 1, count_include_pad=counted), image(size))


@pytest.mark.parametrize("size", SIZES)
def test_avg_pool2d_in_ceil_mode_over_what_exists(size: tuple[int, int]) -> None:
    assert_equals_dense(nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False), image(size))


@pytest.mark.parametrize("counted", [True, False])
def test_explicit_padding_counts_in_an_average(counted: bool) -> None:
    pool = nn.AvgPool2d(3, 1, count_include_pad=counted)
    assert_equals_dense(lambda x: pool(F.pad(x, (1, 1, 1, 1))), image())


@given(plan=plans((8,), coarsest=2))
def test_averages_over_what_exists_keep_a_constant(plan: Plan) -> None:
    x = split(torch.ones(len(plan.levels), 1, *plan.size), plan)
    found = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False).dense()
    torch.testing.assert_close(found, torch.ones_like(found))


# Upsampling


@pytest.mark.parametrize("size", [(16, 24), (8, 40), (4, 12)])
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("by_size", [False, True])
def test_interpolate(by_size: bool, mode: str, factor: int, size: tuple[int, int]) -> None:
    def run(x: Any) -> Any:
        x = F.max_pool2d(x, factor)
        how = {"size": size} if by_size else {"scale_factor": factor}
        return F.interpolate(x, mode=mode, align_corners=None if mode == "nearest" else False, **how)

    assert_equals_dense(run, image(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_interpolate_and_crop_to_a_ragged_map(mode: str, size: tuple[int, int]) -> None:
    def run(x: Any) -> Any:
        large = F.interpolate(F.max_pool2d(x, 3, 2, 1), scale_factor=2, mode=mode)
        return large[:, :, : x.shape[2], : x.shape[3]] + x

    assert_equals_dense(run, image(size))


def test_upsample_modules_of_floats_and_pairs() -> None:
    for layer in (nn.Upsample(scale_factor=2.0), nn.Upsample(scale_factor=(2, 2), mode="bilinear")):
        assert_equals_dense(lambda x, layer=layer: layer(F.max_pool2d(x, 2)), image((16, 24)))


@pytest.mark.parametrize("size", [(16, 24), (8, 8)])
def test_pixel_shuffle(size: tuple[int, int]) -> None:
    assert_equals_dense(lambda x: nn.PixelShuffle(2)(F.max_pool2d(x, 2)), image(size))


# The whole image at once


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "run",
    [
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d((1, 1)),
        lambda x: x.mean((2, 3)),
        lambda x: x.mean(dim=[-1, -2], keepdim=True),
        lambda x: torch.mean(x, (2, 3), True),
        lambda x: F.adaptive_avg_pool2d(F.max_pool2d(x, 3, 2, 1), 1),
    ],
)
def test_global_mean(run: Run, size: tuple[int, int]) -> None:
    assert_equals_dense(run, image(size))


def test_global_mean_ignores_what_tiles_hold_outside_the_image() -> None:
    assert_equals_dense(lambda x: x.log().mean((2, 3)), image().abs())


@given(plan=plans((8,), coarsest=2))
def test_global_mean_of_a_constant_is_the_constant(plan: Plan) -> None:
    x = torch.full((len(plan.levels), 2, *plan.size), 3.0)
    found = split(x, plan).mean((2, 3))
    torch.testing.assert_close(found, torch.full_like(found, 3.0))


def test_global_mean_weighs_samples_by_the_area_that_they_stand_for() -> None:
    x = torch.zeros(1, 1, 8, 16)
    x[..., :8] = 1
    levels = torch.tensor([[[1, 1, 0, 0], [1, 1, 0, 0]]])
    assert split(x, Plan(levels, 4, (8, 16))).mean((2, 3)).item() == 0.5


def test_global_mean_counts_only_what_finer_tiles_have_left_of_a_remembered_one() -> None:
    seen = split(torch.zeros(1, 1, 8, 8), Plan.uniform(1, (8, 8), 4, 1), remember=True)
    seen.mean((2, 3))
    one = Plan(torch.tensor([[[SKIP, 0], [SKIP, SKIP]]]), 4, (8, 8))
    assert split(torch.ones(1, 1, 8, 8), one, seen.memory()).mean((2, 3)).item() == 0.25


def test_global_mean_of_remembered_tiles_smaller_than_their_cells_at_a_ragged_edge() -> None:
    x, size = torch.randn(1, 1, 8, 24), (8, 24)

    def run(plan: Plan, memory: Any = None) -> tuple[Tensor, Any]:
        out = F.max_pool2d(split(x, plan, memory, remember=True), 4)
        return out.mean((2, 3)), out.memory()

    expected, memory = run(Plan.uniform(1, size, 4, 2))
    torch.testing.assert_close(run(Plan.uniform(1, size, 4, SKIP), memory)[0], expected)


def test_squeeze_and_excitation_sees_each_image_alone() -> None:
    first, second = (nn.Conv2d(4, 4, 1).double() for _ in range(2))

    def run(x: Any) -> Any:
        return x * second(first(F.adaptive_avg_pool2d(x, 1)).relu()).sigmoid()

    assert_equals_dense(run, image(images=3))


# Sample by sample

OTHER = torch.randn(1, 4, 1, 1, dtype=torch.float64)
EACH = torch.randn(2, 4, 1, 1, dtype=torch.float64)
SAMPLE_BY_SAMPLE: dict[str, Run] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "prelu_like": nn.LeakyReLU(0.1),
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": nn.Hardtanh(-0.5, 0.5),
    "softplus": nn.Softplus(2.0),
    "sigmoid": torch.sigmoid,
    "tanh method": lambda x: x.tanh(),
    "clamp": lambda x: x.clamp(-0.5, max=0.5),
    "exp and log": lambda x: x.exp().log(),
    "pow": lambda x: x.pow(2),
    "dropout": nn.Dropout(0.5).eval(),
    "contiguous": lambda x: x.contiguous(memory_format=torch.channels_last).clone(),
    "to": lambda x: x.float().to(torch.float64),
    "plus scalar": lambda x: x + 1.5,
    "scalar plus": lambda x: 1.5 + x,
    "minus scalar": lambda x: x - 1.5,
    "scalar minus": lambda x: 1.5 - x,
    "negative": lambda x: -x,
    "times scalar": lambda x: 2 * x * 3,
    "divided": lambda x: x / 3,
    "zero-dimensional": lambda x: x + torch.tensor(2.0),
    "per channel": lambda x: x * OTHER + OTHER[0],
    "per channel first": lambda x: OTHER - OTHER * x,
    "divided into per channel": lambda x: OTHER / (x.abs() + 1),
    "per image": lambda x: (x - EACH) / EACH,
    "per image first": lambda x: EACH * x,
    "residual": lambda x: torch.add(x.relu(), x, alpha=0.5),
    "maximum": lambda x: torch.maximum(x, -x),
    "cat": lambda x: torch.cat([x, x.relu(), -x], 1),
    "cat negative dim": lambda x: torch.cat((x, x), dim=-3),
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: F.log_softmax(x, dim=-3),
    "chunk": lambda x: x.chunk(2, 1)[1],
    "split": lambda x: torch.split(x, [1, 3], dim=1)[1],
    "split method": lambda x: x.split(2, dim=1)[0],
    "sum": lambda x: x.sum(1, keepdim=True),
    "amax": lambda x: x.amax(dim=1, keepdim=True),
    "mean over channels": lambda x: x.mean(1, keepdim=True),
    "channels": lambda x: x[:, 1:3],
    "channels and all": lambda x: x[:, 1:, ...],
    "every second channel": lambda x: x[:, ::2, :, :],
    "all": lambda x: x[...],
    "crop to itself": lambda x: x[..., : x.shape[2], : x.shape[3]],
    "crop past an ellipsis": lambda x: x[:, ..., : x.shape[3]],
    "size": lambda x: x * x.size(1) * x.size()[3] * x.ndim * x.dim(),
    "module list": nn.Sequential(nn.Identity(), nn.ReLU(), nn.Dropout2d()).eval(),
}


@pytest.mark.parametrize("name", SAMPLE_BY_SAMPLE)
def test_sample_by_sample(name: str) -> None:
    assert_equals_dense(SAMPLE_BY_SAMPLE[name], image())


def iadd(x: Any) -> Any:
    x += 1
    x *= 2
    x -= 0.5
    x /= 4
    return x


@pytest.mark.parametrize(
    "run",
    [
        *(layer(inplace=True) for layer in (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid)),
        *(layer(inplace=True) for layer in (nn.Hardtanh, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.Mish)),
        nn.Dropout(0.5, inplace=True).eval(),
        torch.relu_,
        F.hardtanh_,
        lambda x: x.relu_().mul_(2).add_(1).sub_(0.1).div_(2).clamp_(0, 1),
        lambda x: x.sigmoid_().neg_().exp_().tanh_(),
        iadd,
    ],
)
def test_in_place_forms_leave_their_input_untouched(run: Run) -> None:
    x = image((16, 16))
    tiles = split(x, Plan.uniform(2, (16, 16), 8))
    before = tiles.tiles.clone()
    found = run(tiles)
    assert torch.equal(tiles.tiles, before)
    torch.testing.assert_close(found.dense(), run(x.clone()))


def test_arithmetic_of_a_map_with_itself_in_place() -> None:
    def run(x: Any) -> Any:
        y = x * 1
        y += x
        return y

    assert_equals_dense(run, image())


# Batch norm


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm(affine: bool, size: tuple[int, int]) -> None:
    norm = nn.BatchNorm2d(4, affine=affine).double().eval()
    nn.init.uniform_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    assert_equals_dense(norm, image(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"track_running_stats": False}])
def test_batch_norm_in_training_is_that_of_all_samples(
    options: dict[str, Any], size: tuple[int, int]
) -> None:
    dense, tiled = (nn.BatchNorm2d(4, **options).double() for _ in range(2))
    x = image(size) * 3 + 1
    for _ in range(2):
        found = tiled(split(x, Plan.uniform(2, size, 8)) * 1.0).dense()
        torch.testing.assert_close(found, dense(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(dict(tiled.state_dict()), dict(dense.state_dict()))


@given(plan=plans((8,), coarsest=2))
def test_batch_norm_in_training_gives_zero_mean_over_all_tiles(plan: Plan) -> None:
    norm = nn.BatchNorm2d(3, eps=1e-12).double()
    x = split(torch.randn(len(plan.levels), 3, *plan.size, dtype=torch.float64), plan)
    inside = plan.layout.inside(8)
    rows = x.tiles.permute(0, 2, 3, 1)
    rows = rows.flatten(0, 2) if inside is None else rows[inside]
    if len(rows) < 2:
        return
    out = norm(x + 5).tiles.permute(0, 2, 3, 1)
    out = out.flatten(0, 2) if inside is None else out[inside]
    torch.testing.assert_close(out.mean(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * rows.var(0))


# Dense modules


class Pyramid(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert not isinstance(x, TileTensor)
        pooled = F.adaptive_avg_pool2d(x, (2, 3))
        return torch.cat([x, F.interpolate(pooled, size=x.shape[2:], mode="bilinear")], 1)


@pytest.mark.parametrize("size", SIZES)
def test_a_dense_module_sees_the_dense_map(size: tuple[int, int]) -> None:
    assert_equals_dense(run_dense(Pyramid()), image(size))


@pytest.mark.parametrize("level", [1, 2])
def test_a_dense_module_sees_the_reduced_map_of_an_image_that_is_coarse_everywhere(level: int) -> None:
    x, levels = image((32, 32)), torch.zeros(2, 4, 4, dtype=torch.int8)
    levels[1] = level
    found = run_dense(Pyramid())(split(x, Plan(levels, 8, (32, 32)))).dense()
    small = halve(x[1:], level)
    torch.testing.assert_close(found[:1], Pyramid()(x[:1]))
    expected = F.interpolate(Pyramid()(small), scale_factor=2**level, mode="bilinear")
    torch.testing.assert_close(found[1:], expected)


def test_what_a_dense_module_says_of_each_image_comes_back_in_order() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    levels = torch.tensor([1, 0, 2, 0])[:, None, None].expand(4, 4, 4)
    x = torch.arange(4.0)[:, None, None, None].expand(4, 1, 32, 32)
    assert run_dense(Mean())(split(x, Plan(levels, 8, (32, 32)))).flatten().tolist() == [0, 1, 2, 3]


def test_a_dense_module_may_change_the_stride_and_take_and_give_several_maps() -> None:
    class Several(nn.Module):
        def forward(self, maps: list[Tensor], factor: int = 1) -> tuple[Tensor, list[Tensor]]:
            return maps[0] * factor, [F.avg_pool2d(maps[1], 2), maps[1].mean((2, 3))]

    module = run_dense(Several())

    def run(x: Any) -> Any:
        first, (second, third) = module([x, x + 1], factor=3)
        assert third.shape == (2, 4)
        return torch.cat([F.avg_pool2d(first, 2), second], 1)

    assert_equals_dense(run, image((16, 24)))


def test_a_dense_module_takes_keyword_arguments() -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor, other: Tensor) -> Tensor:
            assert not isinstance(other, TileTensor)
            return x + F.adaptive_avg_pool2d(other, 3).sum((2, 3), keepdim=True)

    module = run_dense(Named())
    assert_equals_dense(lambda x: module(x, other=x), image())
    assert_equals_dense(lambda x: module(x=x, other=x), image())


def test_running_dense_twice_is_running_dense_once() -> None:
    module = run_dense(run_dense(Pyramid()))
    assert_equals_dense(module, image())


def test_a_map_that_is_no_whole_stride_cannot_come_back() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, 1:]

    with pytest.raises(
        NoTileRule, match=r"map of \(12, 21\), which is no whole stride of the image of 13x21"
    ):
        run_dense(Odd())(split(image(), Plan.uniform(2, RAGGED, 8)))


# Refusals

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


def test_a_tile_tensor_looks_like_the_map_it_stands_for() -> None:
    x = split(image(), Plan.uniform(2, RAGGED, 8))
    assert x.shape == (2, 4, 13, 21)
    assert (x.size(2), x.ndim, x.dtype, x.device.type) == (13, 4, torch.float64, "cpu")
    half = F.max_pool2d(x, 3, 2, 1)
    assert (half.shape, half.stride, half.side) == ((2, 4, 7, 11), 2, 4)
    assert F.pad(x, (1, 2, 3, 4)).shape == (2, 4, 20, 24)


def test_every_rule_copes_with_no_tile_at_all() -> None:
    x = split(image((16, 24)), Plan.uniform(2, (16, 24), 8, SKIP))
    layers = [
        nn.Conv2d(4, 4, 3, 2, 1),
        nn.BatchNorm2d(4).eval(),
        nn.MaxPool2d(3, 1, 1),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.ConvTranspose2d(4, 4, 2, 2),
        nn.Conv2d(4, 16, 3, 2, 1),
        nn.PixelShuffle(2),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Softmax(1),
        run_dense(Pyramid()),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = nn.Sequential(*layers).double()(x)
    assert out.tiles.shape[0] == 0
    assert torch.equal(out.mean((2, 3)), torch.zeros(2, 8, dtype=torch.float64))


def test_gradients_of_a_ragged_image_stay_finite_through_max_pooling() -> None:
    layers = [nn.MaxPool2d(3, 2, 1)]
    for _ in range(3):
        layers += [nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()]
    network = nn.Sequential(*layers).eval()
    for norm in network:
        if isinstance(norm, nn.Conv2d):
            nn.init.constant_(norm.weight, 2.0)
    x = split(torch.randn(1, 4, 9, 9), Plan.uniform(1, (9, 9), 8))
    network(x).dense().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_a_dense_module_can_be_copied() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    first = run_dense(Scale())
    second = copy.deepcopy(first)
    nn.init.constant_(second.factor, 3.0)
    x = split(image(), Plan.uniform(2, RAGGED, 8))
    torch.testing.assert_close(second(x).dense(), 3 * first(x).dense())


def test_the_error_is_no_more_than_rounding_in_single_precision() -> None:
    layer = nn.Conv2d(4, 8, 7, padding=3)
    x = torch.randn(1, 4, 29, 31)
    found = layer(split(x, Plan.uniform(1, (29, 31), 8))).dense().double()
    single = layer(x).double()
    exact = layer.double()(x.double())
    unavoidable = (single - exact).abs().max().item()
    assert (found - exact).abs().max().item() <= 4 * unavoidable + math.ulp(1.0)


def test_a_map_with_pending_padding_is_not_composed() -> None:
    x = split(torch.rand(1, 3, 32, 32), Plan.uniform(1, (32, 32), 16))
    with pytest.raises(NoTileRule, match="explicit padding"):
        F.pad(x, (0, 1, 0, 1)).dense()
    with pytest.raises(NoTileRule, match="explicit padding"):
        run_dense(nn.Identity())(F.pad(x, (0, 1, 0, 1)))
