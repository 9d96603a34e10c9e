"""Snapshots that a process takes of itself, without criu: from what the dump wrote down to a published snapshot."""
