"""Dumping: how a program checkpoints itself, and the first steps of its copies."""
