"""Tests of the project itself: its documents, scripts and public names."""
