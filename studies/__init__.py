"""Studies: whole papers redone, from a checkout."""
