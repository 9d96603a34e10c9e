"""Restoring: start one copy of a snapshot, or many, or some ahead of time."""
