from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

from foveal.fusion import fuse
from foveal.kernels import build
from foveal.models import create_model
from foveal.program import Program, compile_network
from foveal.tiles import run_dense

BLOCKED = """
import sys

class Blocked:
    names = {"torch", "safetensors", "pydantic", "typer", "rich", "tqdm", "matplotlib", "torchvision", "timm"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ImportError(f"{name} is not to be imported here")

sys.meta_path.insert(0, Blocked())
"""
NETWORKS = ("swiftnet_nano", "swiftnet_rn18_s16", "swiftnet_mobilenetv2", "swiftnet_efflite1")


@pytest.fixture(autouse=True)
def needs_kernels() -> None:
    if not build.available():
        pytest.skip("no compiler")


@pytest.fixture
def blocked() -> str:
    """Code after which no dependency can be imported but NumPy and Pillow."""
    return BLOCKED


@pytest.fixture(params=NETWORKS)
def name(request: pytest.FixtureRequest) -> str:
    """Name of each of the networks in turn."""
    return request.param


@cache
def _network(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = create_model(name, 5)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(value, 0.5, 1.5)
    return network.eval()


@cache
def _program(name: str) -> Program:
    return compile_network(_network(name))


@cache
def _tiled(name: str) -> nn.Module:
    """The fused network, whose dense modules see the composed map."""
    network = fuse(_network(name))
    run_dense(network.get_submodule("head.context"))
    return network


@pytest.fixture
def network() -> Callable[[str], nn.Module]:
    return _network


@pytest.fixture
def program() -> Callable[[str], Program]:
    return _program


@pytest.fixture
def tiled() -> Callable[[str], nn.Module]:
    return _tiled
