"""The keyword arguments of `restore`, for the type checkers of what passes them on; never imported at run time."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from libcriu_py.privilege.mode import Privilege
    from libcriu_py.program.main import Program

    Argument = str | bytes | os.PathLike[str]
    Stream = int | IO[Any] | None


class RestoreSettings(TypedDict, total=False):
    """What `restore` takes beside the snapshot and its arguments, and describes."""

    env: Mapping[str, str] | Mapping[bytes, bytes] | None
    cwd: str | os.PathLike[str] | None
    stdin: Stream
    stdout: Stream
    stderr: Stream
    pass_fds: Sequence[int]
    wait_ready: bool
    main: Program | None
    mode: Privilege | str | None
    isolate: bool
    die_with_caller: bool
    standby: bool
    encoding: str | None
    errors: str | None
