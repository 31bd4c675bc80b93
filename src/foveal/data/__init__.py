"""Files to tensors, and generated scenes. Imports torch, numpy, Pillow and nothing of this package's rest."""
