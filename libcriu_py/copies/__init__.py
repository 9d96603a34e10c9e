"""Restoring: starting copies of a snapshot, one, many, or ahead of time."""
