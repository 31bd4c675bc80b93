"""Training aims, one concern a file."""
