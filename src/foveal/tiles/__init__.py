"""Feature maps stored as tiles, on which an unmodified network runs."""

from foveal.tiles import rules as rules  # fills the table
from foveal.tiles import windows as windows
from foveal.tiles.dense import run_dense
from foveal.tiles.memory import Memory, NetworkChanged
from foveal.tiles.tensor import NoTileRule, TileTensor, split

__all__ = ["Memory", "NetworkChanged", "NoTileRule", "TileTensor", "run_dense", "split"]
