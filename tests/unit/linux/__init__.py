"""Tests of libcriu_py.linux."""
