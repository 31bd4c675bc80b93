"""Any segmentation network as an adaptive model: `foveal.adapt(net)`, then `model(image, budget=0.4)`."""

from foveal.adaptive.adapt import adapt
from foveal.adaptive.model import AdaptiveModel
from foveal.adaptive.preprocess import Preprocess
from foveal.adaptive.result import AdaptiveResult

__all__ = ["AdaptiveModel", "AdaptiveResult", "Preprocess", "adapt"]
