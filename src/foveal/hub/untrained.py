"""Architectures to measure, with random weights that behave like trained ones."""

from __future__ import annotations

import torch
from torch import nn

from foveal.data.pairs import default_palette
from foveal.data.synthetic import street
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model
from foveal.models import SegmentationNetwork, create_model

CLASSES, TILE = 19, 64
"""Classes, and side of a tile [px], of an architecture."""


def random_model(name: str) -> Model:
    """Make an architecture of `foveal.models.MODELS` with random weights."""
    classes = tuple(f"class {k}" for k in range(CLASSES))
    return Model(name, random_network(name), Card(name, classes, default_palette(CLASSES), TILE))


@torch.no_grad()
def random_network(name: str, size: tuple[int, int] = (256, 512)) -> SegmentationNetwork:
    """Make an architecture with random weights, its norms settled on a street of `size` [px].

    Without that activations vanish or grow with depth, and processors are slow with the smallest numbers.
    The weights are always the same, and the state of the random numbers is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = create_model(name, CLASSES)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(street(0, size)[0][None])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
