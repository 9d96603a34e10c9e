"""Tests of libcriu_py.snapshot."""
