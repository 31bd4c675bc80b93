"""What every floor needs of disk and names: writing at once, the cache folder, look-up with a suggestion."""
