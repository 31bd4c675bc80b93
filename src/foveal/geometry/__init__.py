"""Plans and layouts: where every tile lies and which one is computed. Nothing here computes maps."""
