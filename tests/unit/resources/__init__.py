"""Tests of libcriu_py.resources."""
