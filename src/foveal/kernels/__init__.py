"""Native code: building and loading it, its C structures, its memory."""
