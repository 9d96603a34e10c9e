"""
Checkpoint and restore for Python programs, by CRIU, without root.

The names below are imported when they are used: a launcher must not pay for what it does not need.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from libcriu_py.aio import restore_async
    from libcriu_py.binary import find_criu
    from libcriu_py.checkpoint import Checkpoint, checkpoint, checkpoint_here
    from libcriu_py.contexts import Context
    from libcriu_py.critical import no_checkpoint
    from libcriu_py.criu import Criu
    from libcriu_py.doctor import doctor
    from libcriu_py.errors import (
        BinaryNotFound,
        CheckpointError,
        CriuError,
        HookError,
        ImageError,
        OperationRefused,
        RestoreError,
        SnapshotError,
        SnapshotMismatch,
        SnapshotUnsafe,
        TransportError,
        UnsupportedFeature,
        VersionError,
    )
    from libcriu_py.exit import exit_fast
    from libcriu_py.hooks import Resource, after_restore, before_checkpoint, register, unregister
    from libcriu_py.lifecycle import Outcome
    from libcriu_py.many import restore_many
    from libcriu_py.mode import Privilege
    from libcriu_py.options import DumpOptions, DumpOutcome, InheritFd, PreDumpOptions, RestoreOptions
    from libcriu_py.pool import RestorePool
    from libcriu_py.preflight import PreflightError, preflight
    from libcriu_py.process import RestoredProcess
    from libcriu_py.program import Program
    from libcriu_py.restore import restore
    from libcriu_py.snapshot import Mismatch, Snapshot
    from libcriu_py.standby.pool import StandbyPool
    from libcriu_py.streams import DEVNULL, PIPE, STDOUT
    from libcriu_py.trigger import allow_checkpoint

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "BinaryNotFound",
    "Checkpoint",
    "CheckpointError",
    "Context",
    "Criu",
    "CriuError",
    "DumpOptions",
    "DumpOutcome",
    "HookError",
    "ImageError",
    "InheritFd",
    "Mismatch",
    "OperationRefused",
    "Outcome",
    "PreDumpOptions",
    "PreflightError",
    "Privilege",
    "Program",
    "Resource",
    "RestoreError",
    "RestoreOptions",
    "RestorePool",
    "RestoredProcess",
    "Snapshot",
    "SnapshotError",
    "SnapshotMismatch",
    "SnapshotUnsafe",
    "StandbyPool",
    "TransportError",
    "UnsupportedFeature",
    "VersionError",
    "after_restore",
    "allow_checkpoint",
    "before_checkpoint",
    "checkpoint",
    "checkpoint_here",
    "doctor",
    "exit_fast",
    "find_criu",
    "no_checkpoint",
    "preflight",
    "register",
    "restore",
    "restore_async",
    "restore_many",
    "unregister",
]

_MODULES = {
    "aio": ("restore_async",),
    "binary": ("find_criu",),
    "checkpoint": ("Checkpoint", "checkpoint", "checkpoint_here"),
    "contexts": ("Context",),
    "criu": ("Criu",),
    "critical": ("no_checkpoint",),
    "errors": (
        "BinaryNotFound",
        "CheckpointError",
        "CriuError",
        "HookError",
        "ImageError",
        "OperationRefused",
        "RestoreError",
        "SnapshotError",
        "SnapshotMismatch",
        "SnapshotUnsafe",
        "TransportError",
        "UnsupportedFeature",
        "VersionError",
    ),
    "doctor": ("doctor",),
    "exit": ("exit_fast",),
    "hooks": ("Resource", "after_restore", "before_checkpoint", "register", "unregister"),
    "lifecycle": ("Outcome",),
    "options": ("DumpOptions", "DumpOutcome", "InheritFd", "PreDumpOptions", "RestoreOptions"),
    "many": ("restore_many",),
    "pool": ("RestorePool",),
    "preflight": ("PreflightError", "preflight"),
    "mode": ("Privilege",),
    "process": ("RestoredProcess",),
    "program": ("Program",),
    "restore": ("restore",),
    "snapshot": ("Mismatch", "Snapshot"),
    "standby.pool": ("StandbyPool",),
    "streams": ("DEVNULL", "PIPE", "STDOUT"),
    "trigger": ("allow_checkpoint",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


class _Package(ModuleType):
    """A package whose functions are not hidden by the modules of the same names (restore, checkpoint)."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and _HOME.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    """Import the module of a public name and give the name."""
    if name not in _HOME:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Give the public names."""
    return sorted({*globals(), *_HOME})
