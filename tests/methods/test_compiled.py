"""A compiled method answers as its eager form does, pass by pass, and counts the same work."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foveal.cost import count_macs
from foveal.fusion import fuse
from foveal.kernels import build
from foveal.methods import METHODS, AdaptiveSegmenter, CompiledMethod, CompiledNetwork, MethodConfig
from foveal.methods.scaling import enlarge_logits, shrink
from foveal.models import create_model
from foveal.ops import classify
from foveal.program import compile_network
from samples import error_of

TILE = 32
CASES = [
    ("dense", {}),
    *(
        ("segblocks", {"policy": policy})
        for policy in ("entropy", "margin", "detail", "random", "all", "none")
    ),
    *(
        ("coarse_to_fine", {"policy": p, "coarse_level": c})
        for p in ("weighted_entropy", "entropy")
        for c in (1, 2)
    ),
    ("coarse_to_fine", {"threshold": 0.5}),
    *(("coarse_to_fine", {"schedule": "direct", "coarse_level": c}) for c in (1, 2, 3)),
    ("coarse_to_fine", {"schedule": "direct", "threshold": 0.5}),
]

pytestmark = pytest.mark.skipif(not build.available(), reason="no compiler")


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model("swiftnet_nano", 5).eval()


def pair(network: torch.nn.Module, name: str, budget: float, settings: dict) -> tuple[AdaptiveSegmenter, ...]:
    """The eager method and the compiled one."""
    levels = {} if name == "dense" else {"tile": TILE}
    config: MethodConfig = METHODS[name].Config(budget, **{**levels, **settings})
    eager = METHODS[name].from_config(fuse(network), config).eval()
    return eager, CompiledMethod(eager, compile_network(network), config.program_run()).eval()


@torch.no_grad()
@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
@pytest.mark.parametrize("budget", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("size", [(160, 224), (131, 203)])
def test_the_answer_and_every_pass_are_those_of_the_eager_method(
    network: torch.nn.Module, name: str, settings: dict, budget: float, size: tuple[int, int]
) -> None:
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    eager, compiled = pair(network, name, budget, settings)
    expected, found = eager(image), compiled(image)
    assert torch.equal(compiled.labels(image), found.labels)
    assert count_macs(lambda: compiled.labels(image)) == count_macs(lambda: compiled(image))
    assert torch.equal(eager.labels(image), expected.labels)
    assert [step.name for step in found.trace.steps] == [step.name for step in expected.trace.steps]
    for ours, theirs in zip(found.trace.steps, expected.trace.steps, strict=True):
        torch.testing.assert_close(ours.work, theirs.work)
        if ours.plan is not None:
            assert theirs.plan is None or torch.equal(ours.plan.levels, theirs.plan.levels)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    assert (found.labels == expected.labels).double().mean() > 0.999
    assert found.labels.dtype == torch.uint8 and found.size == size


@torch.no_grad()
@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_what_runs_is_counted_as_in_the_eager_method(
    network: torch.nn.Module, name: str, settings: dict
) -> None:
    """Sides are whole coarse tiles: eager ones hang over the edge, a program's coarse pass has none."""
    image = torch.rand(1, 3, 256, 384)
    eager, compiled = pair(network, name, 0.5, settings)
    expected, found = (count_macs(lambda m=m: m(image).labels).total for m in (eager, compiled))
    assert found == pytest.approx(expected, rel=0.01)


@torch.no_grad()
@pytest.mark.parametrize(("name", "settings"), [CASES[0], CASES[1], CASES[-1]], ids=str)
def test_a_mask_that_wants_everything_costs_what_no_mask_costs(
    network: torch.nn.Module, name: str, settings: dict
) -> None:
    image, wanted = torch.rand(1, 3, 256, 384), torch.ones(1, 8, 12, dtype=torch.bool)
    _, compiled = pair(network, name, 0.5, settings)
    whole = count_macs(lambda: compiled(image).labels).interpolation
    assert count_macs(lambda: compiled.masked(image, wanted).labels).interpolation == whole > 0


@torch.no_grad()
def test_a_compiled_network_is_a_module_with_the_logits_of_the_given_one(network: torch.nn.Module) -> None:
    image = torch.rand(2, 3, 97, 130)
    torch.testing.assert_close(
        CompiledNetwork(compile_network(network))(image), network(image), rtol=1e-4, atol=1e-4
    )


def test_what_no_program_can_decide_is_refused(network: torch.nn.Module) -> None:
    dense = METHODS["dense"].from_config(network, METHODS["dense"].Config())
    assert "decides in a way that a program does not have" in error_of(
        lambda: CompiledMethod(dense, compile_network(network), None)
    )
    with pytest.raises(TypeError, match="from a method, not from a config"):
        CompiledMethod.from_config(network, METHODS["dense"].Config())


AT_A_SCALE = [("dense", {}), ("segblocks", {"policy": "entropy"}), ("coarse_to_fine", {"coarse_level": 2})]


@torch.no_grad()
@pytest.mark.parametrize(("name", "settings"), AT_A_SCALE, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("sides", [(160, 224), (99, 150), (262, 406), (33, 65)], ids=str)
def test_one_call_that_shrinks_answers_as_shrinking_by_hand(
    network: torch.nn.Module, name: str, settings: dict, layout: torch.memory_format, sides: tuple[int, int]
) -> None:
    size = (262, 406)
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2)).to(memory_format=layout)
    _, compiled = pair(network, name, 0.9, settings)
    small = compiled(shrink(image, sides))
    expected = small.logits if sides == size else enlarge_logits(small.logits, size)
    found = compiled.shrunk(image, sides)
    torch.testing.assert_close(found.logits, expected, rtol=1e-4, atol=1e-4)
    assert found.labels.shape == (2, *size) and torch.equal(
        compiled.shrunk_labels(image, sides), found.labels
    )
    assert float((found.labels == classify(expected, size)).double().mean()) > 0.9995
    assert [step.name for step in found.trace.steps] == [step.name for step in small.trace.steps]
    torch.testing.assert_close(found.trace.work, small.trace.work)


@torch.no_grad()
def test_bytes_are_shrunk_as_floats_are(network: torch.nn.Module) -> None:
    program = compile_network(network)
    pixels = torch.randint(0, 256, (1, 90, 130, 3), dtype=torch.uint8)
    floats = pixels.permute(0, 3, 1, 2).float() / 255
    ours, theirs = (
        program.run(x, shrunk_to=(60, 90), logits=True, confidence=True) for x in (pixels, floats)
    )
    torch.testing.assert_close(*(torch.from_numpy(x.logits) for x in (ours, theirs)), rtol=1e-4, atol=1e-4)
    assert ours.confidence.shape == (1, 90, 130) and float(ours.confidence.min()) > 1 / 5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [(0, 0), (89, 129), (40, 70)])
def test_a_pixel_that_is_no_number_is_found_where_images_are_shrunk(
    network: torch.nn.Module, bad: float, place: tuple[int, int]
) -> None:
    program, image = compile_network(network), torch.rand(1, 3, 90, 130)
    image[0, 1, place[0], place[1]] = bad
    assert "images hold NaN or infinity" in error_of(lambda: program.run(image, shrunk_to=(60, 90)))


def test_an_image_too_wide_to_shrink_is_refused(network: torch.nn.Module) -> None:
    """Samples of a line are counted in 32 bits; the image is one number, seen again and again."""
    one = np.zeros((1, 1, 1, 3), np.uint8)
    wide = np.lib.stride_tricks.as_strided(one, (1, 1, 1 << 30, 3), (0, 0, 0, 1))
    program = compile_network(network)
    assert "too wide" in error_of(lambda: program.run(wide, shrunk_to=(1, 64)))


def test_what_cannot_be_shrunk_is_refused(network: torch.nn.Module) -> None:
    program, image = compile_network(network), torch.rand(1, 3, 90, 130)
    mask = np.ones((1, 2, 3), np.uint8)
    assert "no mask" in error_of(lambda: program.run(image, mask=mask, shrunk_to=(60, 90)))
    for sides in ((0, 90), (60, -1)):
        assert "whole numbers above 0" in error_of(lambda sides=sides: program.run(image, shrunk_to=sides))
