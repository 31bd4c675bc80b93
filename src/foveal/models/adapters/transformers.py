"""transformers: its networks carry a config; how images are prepared says an image processor beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from foveal.models.adapters.base import Adapter, Images, Maker, Recognised, is_network, is_of

OF_QUERIES = "ForUniversalSegmentation", "ForInstanceSegmentation"
"""How classes of networks end that give masks of queries."""
QUERIES = (
    "gives a mask and a class for every query, and no logits of classes for every pixel; wrap it in a module "
    "that returns the sum over queries of class_queries_logits.softmax(-1)[..., :-1] times "
    "masks_queries_logits.sigmoid()"
)


class TransformersAdapter(Adapter):
    """Networks of transformers."""

    library = "transformers"
    preprocessing = "an image processor of transformers"

    def recognise(self, network: nn.Module) -> Recognised | None:
        """Read the config."""
        config: Any = getattr(network, "config", None)
        if not is_of(network, self.library) or config is None:
            return None
        name = type(network).__name__
        refusal = f"{name} {QUERIES}" if name.endswith(OF_QUERIES) else ""
        return Recognised(maker=Maker(f"{self.library}:{name}", config.to_dict()), refusal=refusal)

    def read(self, given: Any) -> Images | None:
        """Read an image processor; its images are RGB in 0..1 before they are normalised."""
        mean, std = (getattr(given, name, None) for name in ("image_mean", "image_std"))
        if mean is None or std is None:
            return None
        if getattr(given, "do_normalize", True) is False:
            return Images((0.0,), (1.0,), self._scale(given))
        return Images(tuple(mean), tuple(std), self._scale(given))

    def _scale(self, given: Any) -> float:
        """Return the largest value that the network is given for a byte of 255, before the mean goes."""
        return 255.0 if getattr(given, "do_rescale", True) is False else 1.0

    def make(self, maker: Any, arguments: Mapping[str, Any]) -> Any:
        """Make a network of a config."""
        if is_network(maker):
            return maker(maker.config_class.from_dict(dict(arguments)))
        return maker(**arguments)
