"""Tests of libcriu_py.auto."""
