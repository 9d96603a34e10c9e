"""Find the criu program; a public alias of `libcriu_py.criu.find`."""

from libcriu_py.criu.find import find_criu

__all__ = ["find_criu"]
