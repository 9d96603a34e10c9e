"""Tests of libcriu_py.findings."""
