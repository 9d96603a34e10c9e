"""Tests of libcriu_py.criu."""
