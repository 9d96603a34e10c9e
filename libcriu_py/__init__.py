"""
Checkpoint and restore for Python programs, by CRIU, without root.

The names below are imported on first use, so that a start pays only for what it needs.

PYTEST_DONT_REWRITE: pytest takes it for a plugin as a whole.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcriu_py.copies.aio import restore_async as restore_async
    from libcriu_py.copies.interpreter import executable as executable
    from libcriu_py.copies.pool import RestorePool as RestorePool
    from libcriu_py.copies.process import RestoredProcess as RestoredProcess
    from libcriu_py.copies.restore import (
        DEVNULL as DEVNULL,
        PIPE as PIPE,
        STDOUT as STDOUT,
        restore as restore,
        restore_many as restore_many,
    )
    from libcriu_py.copies.standby.pool import StandbyPool as StandbyPool
    from libcriu_py.copies.workers import warm_context as warm_context
    from libcriu_py.criu.client import Criu as Criu
    from libcriu_py.criu.find import find_criu as find_criu
    from libcriu_py.criu.options import (
        DumpOptions as DumpOptions,
        DumpOutcome as DumpOutcome,
        InheritFd as InheritFd,
        PreDumpOptions as PreDumpOptions,
        RestoreOptions as RestoreOptions,
    )
    from libcriu_py.diagnosis import doctor as doctor
    from libcriu_py.dump.checkpoint import (
        Checkpoint as Checkpoint,
        checkpoint as checkpoint,
        checkpoint_here as checkpoint_here,
    )
    from libcriu_py.dump.trigger import allow_checkpoint as allow_checkpoint
    from libcriu_py.errors import (
        BinaryNotFound as BinaryNotFound,
        CheckpointError as CheckpointError,
        CriuError as CriuError,
        HookError as HookError,
        ImageError as ImageError,
        OperationRefused as OperationRefused,
        RestoreError as RestoreError,
        SnapshotError as SnapshotError,
        SnapshotMismatch as SnapshotMismatch,
        SnapshotUnsafe as SnapshotUnsafe,
        TransportError as TransportError,
        UnsupportedFeature as UnsupportedFeature,
        VersionError as VersionError,
    )
    from libcriu_py.exit import exit_fast as exit_fast
    from libcriu_py.findings import PreflightError as PreflightError, preflight as preflight
    from libcriu_py.hooks.contexts import Context as Context
    from libcriu_py.hooks.lifecycle import Outcome as Outcome
    from libcriu_py.hooks.no_checkpoint import no_checkpoint as no_checkpoint
    from libcriu_py.hooks.registry import (
        after_restore as after_restore,
        before_checkpoint as before_checkpoint,
        register as register,
        unregister as unregister,
    )
    from libcriu_py.hooks.resource import Resource as Resource
    from libcriu_py.integrations.web import warm_app as warm_app
    from libcriu_py.privilege.mode import Privilege as Privilege
    from libcriu_py.program.main import Program as Program
    from libcriu_py.snapshot.identity import Mismatch as Mismatch
    from libcriu_py.snapshot.manifest import Snapshot as Snapshot

_HOMES = {
    "copies.aio": ("restore_async",),
    "copies.interpreter": ("executable",),
    "copies.pool": ("RestorePool",),
    "copies.process": ("RestoredProcess",),
    "copies.restore": ("DEVNULL", "PIPE", "STDOUT", "restore", "restore_many"),
    "copies.standby.pool": ("StandbyPool",),
    "copies.workers": ("warm_context",),
    "criu.client": ("Criu",),
    "criu.find": ("find_criu",),
    "criu.options": ("DumpOptions", "DumpOutcome", "InheritFd", "PreDumpOptions", "RestoreOptions"),
    "diagnosis": ("doctor",),
    "dump.checkpoint": ("Checkpoint", "checkpoint", "checkpoint_here"),
    "dump.trigger": ("allow_checkpoint",),
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
    "exit": ("exit_fast",),
    "findings": ("PreflightError", "preflight"),
    "hooks.contexts": ("Context",),
    "hooks.lifecycle": ("Outcome",),
    "hooks.no_checkpoint": ("no_checkpoint",),
    "hooks.registry": ("after_restore", "before_checkpoint", "register", "unregister"),
    "hooks.resource": ("Resource",),
    "integrations.web": ("warm_app",),
    "privilege.mode": ("Privilege",),
    "program.main": ("Program",),
    "snapshot.identity": ("Mismatch",),
    "snapshot.manifest": ("Snapshot",),
}
__version__ = "0.1.0"
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    """Import the module of a public name and return what it names."""
    if name not in _HOME:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *_HOME})
