"""Tests of the launcher and the supervisor."""
