"""What a method costs: multiply-accumulates that ran and milliseconds, the dense network always beside.

And a model of the milliseconds, fitted to measurements.
"""

from foveal.cost.macs import Macs, count_macs, relative_macs
from foveal.cost.measure import Cost, measure
from foveal.cost.model import CostModel, Measurement
from foveal.cost.timing import Timing, alternate, keep_memory

__all__ = [
    "Cost",
    "CostModel",
    "Macs",
    "Measurement",
    "Timing",
    "alternate",
    "count_macs",
    "keep_memory",
    "measure",
    "relative_macs",
]
