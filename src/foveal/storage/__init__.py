"""What every folder needs of disk and names: atomic writes, the cache and its records, look-up of names."""
