"""Segmentation that looks closely only where it matters.

>>> import foveal
>>> model = foveal.load_model("camvid_rn18")
>>> image, _ = foveal.street(seed=24)
>>> method = foveal.SegBlocks(model.network, foveal.create_policy("entropy", budget=0.4, tile=48)).eval()
>>> method(image[None]).labels.shape
torch.Size([1, 720, 960])
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "AdaptiveModel": "foveal.adaptive",
    "CoarseToFineRun": "foveal.program",
    "Dense": "foveal.methods",
    "METHODS": "foveal.methods",
    "MODELS": "foveal.models",
    "POLICIES": "foveal.policies",
    "Plan": "foveal.geometry.plan",
    "Prediction": "foveal.methods",
    "Preprocess": "foveal.adaptive",
    "SKIP": "foveal.geometry.plan",
    "SegBlocks": "foveal.methods",
    "View": "foveal.policies",
    "adapt": "foveal.adaptive",
    "check": "foveal.compatibility",
    "compile_network": "foveal.program",
    "create_model": "foveal.models",
    "create_policy": "foveal.policies",
    "export_program": "foveal.hub.export",
    "fuse": "foveal.fusion",
    "keep_memory": "foveal.cost",
    "load_model": "foveal.hub.checkpoint",
    "measure": "foveal.cost",
    "run_dense": "foveal.tiles",
    "open_dataset": "foveal.data.dataset",
    "read_image": "foveal.data.image",
    "save_model": "foveal.hub.checkpoint",
    "split": "foveal.tiles",
    "street": "foveal.data.synthetic",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `foveal --help` need not wait for PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'foveal' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
