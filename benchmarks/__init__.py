"""Measurements of how soon programs start: `python -m benchmarks.suite --help`."""
