"""Copies restored ahead of time, which wait for their request: a pool of them, and how a launcher takes one."""
