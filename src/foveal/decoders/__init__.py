"""Decoders beside a network: a coarse answer from the end of its encoder, refined where it is asked to be."""

from foveal.decoders.maps import Maps
from foveal.decoders.nrd import PatchDecoder
from foveal.decoders.part import Decoder, DecoderConfig, usual_places
from foveal.decoders.points import PointDecoder

__all__ = ["Decoder", "DecoderConfig", "Maps", "PatchDecoder", "PointDecoder", "usual_places"]
