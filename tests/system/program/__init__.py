"""Tests of libcriu_py.program."""
