"""Policies of the table, made and run the same way in every test."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foveal.methods import Prediction, SegBlocks
from foveal.policies import (
    POLICIES,
    Policy,
    PolicyNet,
    create_policy,
)
from samples import shaken

SIZE = (256, 256)
TILE = 16

NAMES = list(POLICIES)
UNCERTAINTIES = [name for name, entry in POLICIES.items() if entry.needs_pass]

DECISION = 0.02
"""Work of the learned policy itself, on whole blocks."""


def make(name: str, image: Tensor, network: torch.nn.Module, **options: float) -> Policy:
    """Make any policy of the table; the oracle gets random labels of its images, "learned" random weights."""
    given: Any = None
    if name == "oracle":
        given = network, (image.sum(1) * 7).long() % 5
    elif name == "learned":
        given = policy_net(2 * int(options.get("tile", 32)))
    return create_policy(name, given=given, **options)


def policy_net(block: int) -> PolicyNet:
    """Make a small untrained policy network, the same one every time."""
    with torch.random.fork_rng():
        torch.manual_seed(block)
        net: PolicyNet = shaken(PolicyNet(block, 4, 2)).eval()
    net.share = DECISION
    return net


def run(name: str, image: Tensor, network: torch.nn.Module, **options: float) -> Prediction:
    with torch.no_grad():
        return SegBlocks(network, make(name, image, network, **options))(image)


def certain(stride: int) -> Tensor:
    """Logits that are sure of class 0 everywhere."""
    logits = torch.zeros(1, 5, SIZE[0] // stride, SIZE[1] // stride)
    logits[:, 0] = 20.0
    return logits
