"""Cost of a method: multiply-accumulates that ran and milliseconds, compared with the dense network."""

from foveal.cost.by_plan import Counted, MacsByPlan, plan_key
from foveal.cost.macs import Macs, count_macs, relative_macs
from foveal.cost.measure import Cost, measure
from foveal.cost.timing import Timer, Timing, alternate, keep_memory, settle

__all__ = [
    "Cost",
    "Counted",
    "Macs",
    "MacsByPlan",
    "Timer",
    "Timing",
    "alternate",
    "count_macs",
    "keep_memory",
    "measure",
    "plan_key",
    "relative_macs",
    "settle",
]
