"""Recipes, the training loop, its optimiser, checkpoints and processes."""
