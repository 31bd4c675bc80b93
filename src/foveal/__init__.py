"""Segmentation that looks closely only where it matters."""
