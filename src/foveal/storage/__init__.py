"""What every folder needs of disk and names: atomic writes, the cache folder, its records, look-up of names."""
