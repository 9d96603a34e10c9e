"""Tests of libcriu_py.privilege."""
