"""Folding of norms into convolutions, for every static runtime."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


@torch.inference_mode()
def fold_norms(network: nn.Module, side: int = 64) -> nn.Module:
    """Copy a network with every norm folded into the convolution whose output it is given, and no other.

    Which these are is seen by running an image of `side` x `side` px; a layer that runs twice stays as it is.
    """
    network = copy.deepcopy(network).eval()
    made: list[tuple[str, Tensor]] = []
    pairs: list[tuple[str, str]] = []

    def follow(name: str, norm: nn.Module, inputs: tuple[Tensor]) -> None:
        pairs.extend((conv, name) for conv, out in made if out is inputs[0])

    def remember(name: str, conv: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
        made.append((name, out))

    handles = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(partial(remember, name)))
        elif isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(partial(follow, name)))
    network(torch.rand(1, getattr(network, "in_channels", 3), side, side))
    for handle in handles:
        handle.remove()
    for conv, norm in pairs:
        if sum(name == conv for name, _ in made) == sum(name == norm for _, name in pairs) == 1:
            _fold(network, conv, norm)
    return network


def _fold(network: nn.Module, conv: str, norm: str) -> None:
    """Replace two submodules by their product."""
    folded = fuse_conv_bn_eval(network.get_submodule(conv), network.get_submodule(norm))  # type: ignore[type-var, arg-type]
    network.set_submodule(conv, folded)
    network.set_submodule(norm, nn.Identity())
