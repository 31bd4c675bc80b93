"""Loops: train, evaluate, segment. Nothing here prints."""
