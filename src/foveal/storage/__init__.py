"""What every floor needs of the disk and of names: writing at once, the cache folder, look-up with a suggestion."""
