"""The one place that imports the compiled extension."""

try:
    from libcriu_py._libcriu import ffi, lib
except ImportError as error:
    message = f"the C extension of libcriu_py cannot be loaded ({error}); build it with: make build"
    raise ImportError(message, name=error.name, path=error.path) from error

__all__ = ["ffi", "lib"]
