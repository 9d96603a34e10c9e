"""Tests of libcriu_py.images."""
