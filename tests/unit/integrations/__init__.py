"""Tests of libcriu_py.integrations that need no other software."""
