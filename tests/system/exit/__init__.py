"""Tests of ending a process."""
