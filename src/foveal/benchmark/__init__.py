"""Speed beside every static runtime."""
