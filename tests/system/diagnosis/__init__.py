"""Tests of libcriu_py.diagnosis."""
