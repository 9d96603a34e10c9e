"""Tests of libcriu_py.dump."""
