"""The few operations that know where tiles lie. Everything else is a stock operation on a batch of tiles."""

from foveal.ops.compose_tiles import compose_tiles
from foveal.ops.cut_tiles import cut_tiles, halve
from foveal.ops.fetch_halo import fetch_halo
from foveal.ops.layout import Halo, Layout

__all__ = ["Halo", "Layout", "compose_tiles", "cut_tiles", "fetch_halo", "halve"]
