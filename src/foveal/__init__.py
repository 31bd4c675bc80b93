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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what a type checker sees; `_HOMES` is what runs
    from foveal.adaptive import AdaptiveModel as AdaptiveModel
    from foveal.adaptive import Preprocess as Preprocess
    from foveal.adaptive.adapt import adapt as adapt
    from foveal.calibration.export import export_program as export_program
    from foveal.compatibility import check as check
    from foveal.cost import keep_memory as keep_memory
    from foveal.cost import measure as measure
    from foveal.data.dataset import open_dataset as open_dataset
    from foveal.data.image import read_image as read_image
    from foveal.data.synthetic import street as street
    from foveal.fusion import fuse as fuse
    from foveal.geometry.plan import SKIP as SKIP
    from foveal.geometry.plan import Plan as Plan
    from foveal.hub.checkpoint import load_model as load_model
    from foveal.hub.checkpoint import save_model as save_model
    from foveal.inference.large import segment_large as segment_large
    from foveal.methods import METHODS as METHODS
    from foveal.methods import Dense as Dense
    from foveal.methods import Prediction as Prediction
    from foveal.methods import SegBlocks as SegBlocks
    from foveal.models import MODELS as MODELS
    from foveal.models import create_model as create_model
    from foveal.models.adapters import import_library as import_library
    from foveal.policies import POLICIES as POLICIES
    from foveal.policies import View as View
    from foveal.policies import create_policy as create_policy
    from foveal.program import CoarseToFineRun as CoarseToFineRun
    from foveal.program import compile_network as compile_network
    from foveal.tiles import run_dense as run_dense
    from foveal.tiles import split as split

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
    "adapt": "foveal.adaptive.adapt",
    "check": "foveal.compatibility",
    "compile_network": "foveal.program",
    "create_model": "foveal.models",
    "create_policy": "foveal.policies",
    "export_program": "foveal.calibration.export",
    "fuse": "foveal.fusion",
    "import_library": "foveal.models.adapters",
    "keep_memory": "foveal.cost",
    "load_model": "foveal.hub.checkpoint",
    "measure": "foveal.cost",
    "run_dense": "foveal.tiles",
    "open_dataset": "foveal.data.dataset",
    "read_image": "foveal.data.image",
    "save_model": "foveal.hub.checkpoint",
    "segment_large": "foveal.inference.large",
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
