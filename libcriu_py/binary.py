"""The criu program, as its finder is imported by its users."""

from libcriu_py.criu.find import find_criu

__all__ = ["find_criu"]
