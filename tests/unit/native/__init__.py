"""Tests of libcriu_py.native."""
