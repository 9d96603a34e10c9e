"""Snapshots that are made, and kept fit, by themselves: `libcriu-py auto` and shims (csrc/launcher/automatic.c)."""
