"""Networks with published weights: their names and shapes, tiles, and the weights where they lie here."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreign import lively
from foveal.adaptive.opening import load_weights
from foveal.compatibility.lockstep import judge
from foveal.compatibility.survey import with_dense
from foveal.data.dataset import open_dataset
from foveal.geometry.plan import Plan
from foveal.kernels import build
from foveal.methods import CoarseToFine, Refinement
from foveal.ops import compose_tiles, halve
from foveal.policies import POLICIES
from foveal.program import CoarseToFineRun, PlannedRun, Program, compile_network
from foveal.tiles import split
from strategies import random_plan
from studies.networks import cgnet, espnet, espnetv2

NAMES = Path(__file__).parent / "weights"
"""Names and shapes of the published weights, a line each; counters of batches, which do nothing, left out."""
DATA = Path("data")
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "cgnet_m3n21_camvid_trainval": cgnet.network,
    "espnet_p2_q8_camvid": espnet.network,
    "espnetv2_s_2.0_city_1024x512": espnetv2.network,
    "espnetv2_s_1.0_city_1024x512": lambda: espnetv2.network(1.0),
    "espnetv2_s_0.5_city_1024x512": lambda: espnetv2.network(0.5),
}
NARROW: dict[str, Callable[[], nn.Module]] = {
    "cgnet": lambda: cgnet.CGNet(5, (2, 2), 16),
    "espnet": lambda: espnet.ESPNet(6, 5, (1, 1), (8, 16, 24)),
    "espnetv2": lambda: espnetv2.ESPNetv2(6, 5, (16, 32, 64, 128), (1, 1)),
}
"""Small ones of the same parts."""
MULTIPLE = {"cgnet": 1, "espnet": 8, "espnetv2": 64}
"""What sides must be multiples of [px]: at a coarse level, of so much more."""
SIZE, TILE = (192, 256), 32
RAGGED = {
    "cgnet": ((203, 270), (75, 101)),
    "espnet": ((200, 264), (72, 104)),
    "espnetv2": ((192, 320), (64, 448)),
}
"""Sizes of which tiles hang over the edge, at level 0 or 1."""


def as_wanted(module: Any, image: Tensor) -> Tensor:
    return image.flip(1) if module.PREPROCESS.channel_order == "bgr" else image


def listed(state: dict[str, Tensor]) -> list[str]:
    kept = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    return sorted(" ".join([name, *map(str, value.shape)]) for name, value in kept.items())


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_shapes_are_those_of_the_published_weights(name: str) -> None:
    expected = (NAMES / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    assert listed(NETWORKS[name]().state_dict()) == expected


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_logits_have_the_size_of_the_image(name: str) -> None:
    classes = 19 if name.startswith("espnetv2") else 11
    assert NETWORKS[name]().eval()(torch.rand(1, 3, 96, 128)).shape == (1, classes, 96, 128)


def test_cgnet_takes_images_of_any_size() -> None:
    assert cgnet.network().eval()(torch.rand(1, 3, 75, 101)).shape == (1, 11, 75, 101)


@pytest.mark.parametrize("name", NARROW)
@torch.no_grad()
def test_narrow_networks_on_tiles_equal_dense_ones(name: str) -> None:
    """Every level alone, and mixed levels beside one dense network a level."""
    network = lively(NARROW[name]()).double()
    parts = espnetv2.whole_map_parts(network) if isinstance(network, espnetv2.ESPNetv2) else ()
    tiled, image = with_dense(network, parts), torch.rand(1, 3, *SIZE, dtype=torch.float64)
    images = {level: halve(image, level) if level else image for level in range(3)}
    for level, small in images.items():
        out = tiled(split(image, Plan.uniform(1, SIZE, TILE, level)))
        found = compose_tiles(out.tiles, out.layout, level)
        torch.testing.assert_close(found, network(small), rtol=0, atol=1e-9)
    levels = torch.full((1, SIZE[0] // TILE, SIZE[1] // TILE), 2, dtype=torch.int8)
    levels[:, :4, :4], levels[:, :2, 2:4] = 1, 0
    plan = Plan(levels, TILE, SIZE)
    found = tiled(split(image, plan)).dense()
    torch.testing.assert_close(found, judge(network, parts, images, plan), rtol=0, atol=1e-9)


@cache
def program_and_tiles(name: str) -> tuple[Program, nn.Module]:
    """Make a narrow network twice: compiled, and for tiles in PyTorch."""
    torch.manual_seed(0)
    network = lively(NARROW[name]())
    parts = espnetv2.whole_map_parts(network) if isinstance(network, espnetv2.ESPNetv2) else ()
    return compile_network(network, parts, MULTIPLE[name]), with_dense(network, parts)


def off(found: Any, expected: Tensor) -> float:
    """Largest difference as a share of the largest logit."""
    other = expected.permute(0, 2, 3, 1).numpy()
    assert found.shape == other.shape
    return float(abs(found - other).max() / abs(other).max())


@pytest.mark.skipif(not build.available(), reason="no compiler")
@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("seed", range(6))
@torch.no_grad()
def test_programs_of_narrow_networks_answer_as_tiles_do(name: str, seed: int) -> None:
    """Law 15: random plans of up to three levels, skipped tiles, sides that no tile of a level divides."""
    program, tiled = program_and_tiles(name)
    source, size = Random(seed), RAGGED[name][seed // 3]
    plan = random_plan(source, 2, size, TILE, seed % 3, source.choice([0.0, 0.3]))
    image = torch.rand(2, 3, *size)
    found = program.run(image, PlannedRun(plan.levels.numpy(), TILE), threads=1 + seed % 2, logits=True)
    assert off(found.logits, tiled(split(image, plan)).dense()) < 1e-4


@pytest.mark.skipif(not build.available(), reason="no compiler")
@pytest.mark.parametrize("name", NARROW)
@torch.no_grad()
def test_programs_of_narrow_networks_refine_as_tiles_do(name: str) -> None:
    """Law 15: later passes read borders, whole maps and averages of earlier ones, on a ragged image."""
    program, tiled = program_and_tiles(name)
    image = torch.rand(1, 3, *RAGGED[name][0])
    expected = CoarseToFine(tiled, 0.7, TILE, 1, Refinement(POLICIES["entropy"].score))(image)
    found = program.run(image, CoarseToFineRun(0.7, "entropy", TILE, 1), logits=True)
    assert (found.levels == expected.trace.levels.numpy()).all()
    assert {*found.levels.flatten().tolist()} == {0, 1}
    assert off(found.logits, expected.logits) < 1e-4


def test_only_scales_of_no_whole_stride_see_the_whole_map() -> None:
    parts = espnetv2.whole_map_parts(espnetv2.network(0.5))
    assert parts == tuple(f"bu_dec_l{k}.stages.{n}" for k in range(1, 5) for n in (1, 3, 4))


def test_preprocessing_of_the_published_weights() -> None:
    """Both CamVid networks subtract the mean of blue first; one of them takes red there."""
    image = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    for module, expected in (
        (cgnet, [255 - 109.8, 127.5 - 107.8, -104.4]),
        (espnet, [-109.8 / 72.2 / 255, 19.7 / 72.8 / 255, 150.6 / 70.0 / 255]),
    ):
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in module.PREPROCESS.per_channel(3))
        found = (as_wanted(module, image) - mean) / std
        torch.testing.assert_close(found.flatten(), torch.tensor(expected), rtol=1e-4, atol=1e-6)


ACCURACY = [
    ("cgnet_m3n21_camvid_trainval", "camvid:data/camvid", 1.0, 0.85),
    ("espnet_p2_q8_camvid", "camvid:data/camvid", 1.0, 0.8),
    ("espnetv2_s_0.5_city_1024x512", "folder:data/samples/cityscapes", 0.5, 0.9),
]


@pytest.mark.parametrize(("name", "where", "scale", "least"), ACCURACY)
@torch.no_grad()
def test_published_weights_know_their_images(name: str, where: str, scale: float, least: float) -> None:
    file = DATA / "weights" / f"{name}.pth"
    if not (file.is_file() and Path(where.partition(":")[2]).is_dir()):
        pytest.skip(f"there is no {file}, or no {where}")
    network = NETWORKS[name]()
    load_weights(network, file)
    module = {"cgnet": cgnet, "espnet": espnet, "espnetv2": espnetv2}[name.split("_")[0]]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in module.PREPROCESS.per_channel(3))
    image, labels = open_dataset(where, "test")[0]
    small = F.interpolate(image[None], scale_factor=scale, mode="bilinear", antialias=True)
    logits = network.eval()((as_wanted(module, small) - mean) / std)
    found = F.interpolate(logits, labels.shape, mode="bilinear").argmax(1)[0]
    assert (found == labels)[labels != 255].float().mean() > least
