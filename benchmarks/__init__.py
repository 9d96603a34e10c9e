"""Benchmarks: what a restored start saves, and how many there can be a second."""
