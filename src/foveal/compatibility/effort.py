"""How much of a network is compared, so that an answer does not keep anyone waiting."""

from __future__ import annotations

EFFORT = 1.3e12
"""Multiplications that comparing may take: half a minute of two cores, a minute of one."""


class Effort:
    """Multiplications that are left. They depend on the network alone, so every machine compares the same.

    Args:
        macs: MACs of one run of the dense network.
        size: Height and width of its image [px].
    """

    def __init__(self, macs: int, size: tuple[int, int]) -> None:
        self.macs, self.size, self.left = macs, size, EFFORT
        self.skipped = 0

    def spend(self, size: tuple[int, int], runs: float, least: bool = False) -> bool:
        """Take what some runs on an image of a size need, if there is as much; say whether they may run.

        Args:
            size: Height and width of their images [px].
            runs: How many, in runs on one image of the dense network.
            least: Whether they run anyway.
        """
        needed = runs * self.macs * (size[0] * size[1]) / (self.size[0] * self.size[1])
        may = least or needed <= self.left
        self.left -= needed if may else 0
        self.skipped += not may
        return may

    @property
    def notes(self) -> tuple[str, ...]:
        """Say what was left out, if anything was."""
        if not self.skipped:
            return ()
        height, width = self.size
        return (
            f"{self.skipped} of the comparisons were left out, since the network takes "
            f"{self.macs / 1e9:.0f} GMACs for {height}x{width} px; give check a smaller size to have all",
        )
