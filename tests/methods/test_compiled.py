"""A compiled method answers as its eager form does, pass by pass, and counts the same work."""

from __future__ import annotations

import pytest
import torch

from foveal.cost import count_macs
from foveal.fusion import fuse
from foveal.kernels import build
from foveal.methods import METHODS, AdaptiveSegmenter, CompiledMethod, CompiledNetwork, MethodConfig
from foveal.models import create_model
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
