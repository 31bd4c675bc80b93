"""Gates in residual units: what units are, who decides where they are computed, and computing them there."""

from foveal.gates.gates import GateConfig, Gates, GatesConfig
from foveal.gates.masked import MaskedNetwork
from foveal.gates.network import GatedNetwork
from foveal.gates.units import Unit, find_units

__all__ = ["GateConfig", "GatedNetwork", "Gates", "GatesConfig", "MaskedNetwork", "Unit", "find_units"]
