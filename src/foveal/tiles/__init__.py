"""Feature maps stored as tiles, on which an unmodified network runs."""

from foveal.tiles import channels as channels  # these fill the table
from foveal.tiles import pooling as pooling
from foveal.tiles import reorder as reorder
from foveal.tiles import resize as resize
from foveal.tiles import rules as rules
from foveal.tiles import statistics as statistics
from foveal.tiles import windows as windows
from foveal.tiles.dense import run_dense
from foveal.tiles.memory import Memory, NetworkChanged
from foveal.tiles.retile import retile
from foveal.tiles.tensor import NoTileRule, TileTensor, WrongGeometry, split

__all__ = [
    "Memory",
    "NetworkChanged",
    "NoTileRule",
    "TileTensor",
    "WrongGeometry",
    "retile",
    "run_dense",
    "split",
]
