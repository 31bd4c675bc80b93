"""Risk control: the least work whose losses stay, on average, within what is allowed."""

from __future__ import annotations

from foveal.calibration.risk.table import RiskSetting, RiskTable

__all__ = ["RiskSetting", "RiskTable"]
