"""What the readers of data, the objectives and the measures agree on about label maps."""

VOID = 255
"""Label of a pixel that belongs to no class; it counts in no objective and no measure."""
MASK_BORDERS = ("edge", "coarse")
"""What the edge of a mask borders on: what lies beyond an image, or what a coarse pass found there."""
