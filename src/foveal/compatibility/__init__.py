"""Whether a network runs on tiles, with which modules dense, and what that would save."""

from foveal.compatibility.network import check
from foveal.compatibility.report import Comparison, MixedRun, NetworkReport
from foveal.compatibility.survey import Finding

__all__ = ["Comparison", "Finding", "MixedRun", "NetworkReport", "check"]
