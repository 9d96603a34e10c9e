"""Tests of libcriu_py.hooks."""
