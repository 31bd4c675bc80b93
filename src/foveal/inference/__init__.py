"""From images on disk to labels on disk."""
