"""Programs whose memory is mapped in their copies, and snapshots of them in which more is mapped than is safe."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.snapshot import record as launch_record
from tests.system.selfdump import SelfDump, take

if TYPE_CHECKING:
    from pathlib import Path

    from libcriu_py.snapshot.record import Launch
    from tests.system.conftest import Mode

UNSAFE = """
    import sys
    from libcriu_py.memory import allocators
    from libcriu_py.memory import optimize
    from libcriu_py.memory import owners

    def everything(memory, **_):
        ordinary = filter(owners.is_ordinary, memory.areas)
        return [owners.Owned(area.start, area.end, "anybody") for area in ordinary]

    optimize.recognise = everything
    allocators.owns_heap = lambda found: False
    assert optimize.optimize(sys.argv[1], wanted="map").kind == "map"
"""
"""Maps all anonymous memory of a snapshot, whoever owns it."""


class Both(NamedTuple):
    """
    Two snapshots of one program.

    Attributes:
        safe: As it is made.
        unsafe: With everything mapped.
    """

    safe: SelfDump
    unsafe: SelfDump


def take_mapped(
    mode: Mode, directory: Path, code: str, *args: str, memory: str = "auto", env: dict[str, str] | None = None
) -> SelfDump:
    """Let a program checkpoint itself, with a kind of memory."""
    name = f"snap-{memory}"
    code = textwrap.dedent(code)
    return take(mode, directory, code, *args, name=name, env={"LIBCRIU_PY_MEMORY": memory, **(env or {})})


def take_both(mode: Mode, directory: Path, code: str, *, env: dict[str, str] | None = None) -> Both:
    """Make a snapshot as usual, and one with everything mapped."""
    safe = take_mapped(mode, directory, code, env=env)
    unsafe = take_mapped(mode, directory, code, memory="copy", env=env)
    unsafe.call(UNSAFE)
    return Both(safe, unsafe)


def record_of(snapshot: SelfDump) -> Launch:
    """Return what the launch record says."""
    return launch_record.decode((snapshot.path / "launch").read_bytes())


def memory_of(snapshot: SelfDump) -> dict[str, Any]:
    """Return what the manifest says of the memory."""
    manifest = json.loads((snapshot.path / "manifest.json").read_text(encoding="utf-8"))
    memory: dict[str, Any] = manifest["memory"]
    return memory
