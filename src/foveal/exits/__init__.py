"""Networks that may be left before their end: parts of a network, and heads between them."""

from foveal.exits.heads import ExitConfig, ExitHead, Exits
from foveal.exits.stages import Stages

__all__ = ["ExitConfig", "ExitHead", "Exits", "Stages"]
