"""Tests that need neither root nor criu."""
