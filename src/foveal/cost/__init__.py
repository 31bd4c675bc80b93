"""What a method costs: multiply-accumulates that ran and milliseconds, the dense network always beside."""

from foveal.cost.macs import Macs, count_macs, relative_macs
from foveal.cost.measure import Cost, measure
from foveal.cost.timing import Timing, alternate, keep_memory

__all__ = ["Cost", "Macs", "Timing", "alternate", "count_macs", "keep_memory", "measure", "relative_macs"]
