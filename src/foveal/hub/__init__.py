"""Trained networks as files, by name or path."""
