"""Speed of adaptive methods, compared with static runtimes."""
