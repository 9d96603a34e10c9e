"""Programs that go on past their checkpoint without a snapshot, because one is there or none can be made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from libcriu_py.hooks.lifecycle import Engine, Outcome, Return
from libcriu_py.snapshot import notices
from libcriu_py.snapshot.record import LAUNCH
from libcriu_py.snapshot.remains import MARKER

if TYPE_CHECKING:
    from collections.abc import Mapping


def is_wanted(error: BaseException, settings: Mapping[str, Any]) -> bool:
    """
    Return whether the program is to go on without a snapshot; where none can be made, say why.

    Args:
        error: What kept the checkpoint from being taken.
        settings: Those of the checkpoint.
    """
    if isinstance(error, FileExistsError):
        return settings["if_exists"] == "continue" and _holds_snapshot(settings["dir"])
    if settings["if_impossible"] != "continue":
        return False
    notices.skipped(error)
    return True


def _holds_snapshot(path: str | os.PathLike[str]) -> bool:
    """Return whether a directory has a snapshot, or one that is being made; anything else there is a mistake."""
    return any(os.path.lexists(os.path.join(path, name)) for name in (LAUNCH, MARKER))


class SkippingEngine(Engine):
    """The engine that dumps nothing; the hooks run, as they do with `then="continue"`."""

    def dump(self) -> Return:
        """Return without a dump."""
        return Return(Outcome.SKIPPED)
