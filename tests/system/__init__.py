"""Tests that dump and restore real processes."""
