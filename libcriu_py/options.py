"""The options and values of CRIU's operations: public aliases of `libcriu_py.criu.options`."""

from libcriu_py.criu.options import *  # noqa: F403 - all that its __all__ names
