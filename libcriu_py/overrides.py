"""
Settings of a checkpoint from outside of the program: variables that go before what it says itself.

Beside these, each where it is used: LIBCRIU_PY_SNAPSHOT, _MODE, _MEMORY, _REPLACE, _EXIT, _RESOURCES, _SCRUB, _CONFIG.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

THEN = "LIBCRIU_PY_THEN"
ENGINE = "LIBCRIU_PY_ENGINE"
HOOK_LIMIT = "LIBCRIU_PY_HOOK_LIMIT"
CONVENTIONAL = "LIBCRIU_PY_CONVENTIONAL"
"""The pid of a process that was started in place of a copy, and so has nothing to save; its children are others."""
OPTIONS = "LIBCRIU_PY_OPTIONS"
"""Options of the dump as a JSON object, such as `{"tcp_close": true}`; others of the program stay."""


def overridden(settings: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the settings of a checkpoint as the environment wants them.

    Args:
        settings: As the program gives them.

    Raises:
        ValueError: A variable has a value that it cannot have.
    """
    changed = dict(settings)
    for name, variable in (("then", THEN), ("engine", ENGINE)):
        changed[name] = os.environ.get(variable) or settings.get(name)
    if os.environ.get(CONVENTIONAL) == str(os.getpid()):
        changed["engine"] = "simulate"
    limit = os.environ.get(HOOK_LIMIT)
    if limit:
        changed["hook_limit"] = _seconds(limit)
    options = os.environ.get(OPTIONS)
    if options:
        changed["options"] = {**(settings.get("options") or {}), **_object(options)}
    return changed


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds > 0:
        message = f"{HOOK_LIMIT} must be a number of seconds, not {text!r}"
        raise ValueError(message)
    return seconds


def _object(text: str) -> dict[str, Any]:
    import json

    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    message = f"{OPTIONS} must be a JSON object with options of DumpOptions, not {text!r}"
    raise ValueError(message)
