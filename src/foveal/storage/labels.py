"""What the readers of data, the objectives and the measures agree on about label maps."""

VOID = 255
"""Label of a pixel that belongs to no class; it counts in no objective and no measure."""
