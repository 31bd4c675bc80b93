"""segmentation_models_pytorch: its networks carry the arguments that they were made with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

from torch import nn

from foveal.models.adapters.base import Adapter, Images, Maker, Recognised, is_of

ANY_SIZE = "requires_divisible_input_shape"
"""Attribute of its networks: whether images of other sides are refused, which is decided by `if`."""


class SmpAdapter(Adapter):
    """Networks of segmentation_models_pytorch."""

    library = "segmentation_models_pytorch"

    def recognise(self, network: nn.Module) -> Recognised | None:
        """Read the arguments; weights of the encoder say how images were prepared."""
        given: Any = getattr(network, "_hub_mixin_config", None)
        own = is_of(network, self.library)
        if not own and not (isinstance(given, Mapping) and "encoder_name" in given):
            return None
        known = given if isinstance(given, Mapping) else {}
        maker = Maker(f"{self.library}:{type(network).__name__}", {**known, "encoder_weights": None})
        weights, name = known.get("encoder_weights"), known.get("encoder_name")
        return Recognised(
            partial(self._images, str(name), str(weights)) if weights and name else None,
            maker if own and known else None,
            settings={ANY_SIZE: False} if hasattr(network, ANY_SIZE) else {},  # sides are padded outside
        )

    def _images(self, name: str, weights: str) -> Images:
        """Ask the library how the images of an encoder's weights were prepared; it may have to download that.

        Raises:
            ValueError: It does not know.
        """
        try:
            found = import_module(f"{self.library}.encoders").get_preprocessing_params(
                name, pretrained=weights
            )
        except (OSError, ValueError, KeyError) as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
            raise ValueError(
                f"{self.library} cannot say how images were prepared for the weights {weights} of {name} "
                f"({said}); give preprocess=foveal.Preprocess(mean, std)"
            ) from None
        scale = 255.0 if max(found.get("input_range") or (0, 1)) > 1 else 1.0
        blue_first = str(found.get("input_space", "RGB")).upper() == "BGR"
        plain = found.get("mean") is None
        mean, std = ((0.0,), (1.0,)) if plain else (tuple(found["mean"]), tuple(found["std"]))
        return Images(mean, std, scale, "bgr" if blue_first else "rgb")
