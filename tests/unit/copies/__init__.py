"""Tests of libcriu_py.copies."""
