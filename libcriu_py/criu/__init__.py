"""The binding: all that libcriu can do, for any process."""

from libcriu_py.criu.client import Criu

__all__ = ["Criu"]
