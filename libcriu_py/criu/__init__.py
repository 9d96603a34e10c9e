"""The binding to libcriu: dump and restore any process."""

from libcriu_py.criu.client import Criu

__all__ = ["Criu"]
