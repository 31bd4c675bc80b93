"""SegBlocks: the terms of its loss."""

from __future__ import annotations

import pytest
import torch

from foveal.methods import SegBlocks
from foveal.policies import RandomPlans, Uniform
from samples import nano

CLASSES = 5


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
