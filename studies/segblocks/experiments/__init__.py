"""The experiments of the study: one file each, and the table of all."""

from __future__ import annotations

from typing import Any

from studies.segblocks.experiment import Experiment
from studies.segblocks.experiments import (
    blocks,
    borders,
    classes,
    distribution,
    gmacs,
    main_table,
    memory,
    panels,
    policies,
    policy_net,
    residual_block,
    shares,
    training_curves,
    training_speed,
)

EXPERIMENTS: dict[str, Experiment[Any]] = {
    "main_table": main_table.EXPERIMENT,
    "gmacs": gmacs.EXPERIMENT,
    "classes": classes.EXPERIMENT,
    "distribution": distribution.EXPERIMENT,
    "policies": policies.EXPERIMENT,
    "policy_net": policy_net.EXPERIMENT,
    "blocks": blocks.EXPERIMENT,
    "panels": panels.EXPERIMENT,
    "borders": borders.EXPERIMENT,
    "memory": memory.EXPERIMENT,
    "shares": shares.EXPERIMENT,
    "residual_block": residual_block.EXPERIMENT,
    "training_speed": training_speed.EXPERIMENT,
    "training_curves": training_curves.EXPERIMENT,
}
"""In the order in which they run and are shown."""
