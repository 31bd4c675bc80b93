"""What all folders share: atomic writes, the cache and its records, look-up of names, the void label."""
