from __future__ import annotations

import pytest
import torch

from foveal.calibration.neighbours import LEAST, Neighbourhood, noise
from foveal.policies import View


def filled(alone: float, full: float, seed: int = 0, lost: float = 0.0) -> Neighbourhood:
    """Count tiles that gain as the model says, and lose some of it by chance."""
    found, draw = Neighbourhood(), torch.Generator().manual_seed(seed)
    around = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    around[..., 1, 1] = 0
    for share in (0.1, 0.4, 0.7):
        wrong = torch.rand(12, 17, generator=draw, dtype=torch.float64) * 50
        refined = torch.rand(12, 17, generator=draw) < share
        near, known = (
            torch.nn.functional.conv2d(x.double()[None, None], around, padding=1)[0, 0]
            for x in (refined, torch.ones_like(wrong))
        )
        gone = wrong * (alone + (full - alone) * near / known) * refined
        gone += lost * wrong.sqrt() * torch.randn(12, 17, generator=draw, dtype=torch.float64) * refined
        found.add(wrong, wrong - gone, refined)
    return found


@pytest.mark.parametrize(("alone", "full"), [(0.2, 0.8), (0.35, 0.9), (0.5, 0.5)])
def test_the_share_that_was_put_in_is_found(alone: float, full: float) -> None:
    assert filled(alone, full).isolated_gain == pytest.approx(alone / full, abs=2e-3)
    assert filled(alone, full, lost=0.5).isolated_gain == pytest.approx(alone / full, abs=0.1)


def test_no_tiles_say_nothing() -> None:
    found = Neighbourhood()
    assert found.isolated_gain is None
    zeros = torch.zeros(3, 3, dtype=torch.float64)
    found.add(zeros, zeros, torch.ones(3, 3, dtype=torch.bool))
    assert found.isolated_gain is None


def test_what_gains_nothing_alone_keeps_a_little() -> None:
    assert filled(-0.1, 0.8).isolated_gain == LEAST


def test_patches_differ_in_size_and_from_seed_to_seed() -> None:
    view = View(torch.zeros(2, 3, 96, 128))
    first, again, other = noise(1)(view), noise(1)(view), noise(2)(view)
    assert first.shape == (2, 96, 128)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
