"""
Hooks around a checkpoint: their registry, their order, and the stopping of other threads meanwhile.

A library may register hooks wherever it runs: this imports on any system, without the C extension, in less than a
millisecond. Where no checkpoint is taken, they never run.
"""

from __future__ import annotations

import os

from libcriu_py.hooks.registry import after_restore, before_checkpoint, register, unregister

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcriu_py.hooks.resource import Resource

__all__ = ["Resource", "after_restore", "before_checkpoint", "register", "unregister"]

if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
    from libcriu_py.hooks import snapstart

    snapstart.join()


def __getattr__(name: str) -> object:
    """Import the protocol when it is asked for: it costs more than all else here."""
    if name != "Resource":
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from libcriu_py.hooks.resource import Resource

    return Resource
