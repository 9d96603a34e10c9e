"""Tests of libcriu_py.memory."""
