"""Tests of automatic snapshots."""
