"""Real programs from PyPI, conventional and restored."""
