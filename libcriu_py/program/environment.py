"""
What a program has changed in its environment, which its copies have over the environment of their launcher.

A conventional start gives a program its launcher's environment, and the program then changes it: modules do when they
are imported (`os.environ.setdefault("DJANGO_SETTINGS_MODULE", ...)`), and they are not imported again in a copy.
So what differs at the dump from what the process was started with is kept, and done again in each copy:

- a variable that was not set then is set, unless the launcher has set it;
- one that was changed or deleted is so where the launcher gives it the value that it had then.

Elsewhere the launcher's stays: whether the program would have overwritten it is not known.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.linux.files import stat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Judge = Callable[[str], bool]

_OURS = b"LIBCRIU_PY_"
_COERCED = frozenset({b"C.UTF-8", b"C.utf8", b"UTF-8"})
"""What the interpreter sets LC_CTYPE to when it starts, and each copy anew (PEP 538)."""


class Changes(NamedTuple):
    """What differs from the start."""

    added: dict[bytes, bytes]
    """Variables that were not there."""
    changed: list[tuple[bytes, bytes, bytes | None]]
    """Others: name, the value of the start, and the new one; None where it was deleted."""


_NONE = Changes({}, [])


class _State:
    """
    What is known of this process.

    Attributes:
        noted: Whether it was asked for already. What comes later is what the program made of it: setproctitle, for
            one, writes titles there.
        start: The variables that the process was started with, but for secrets; None where that is not known.
        left_out: Names of the secrets.
        is_secret: What tells them.
    """

    noted = False
    start: Mapping[bytes, bytes] | None = None
    left_out: frozenset[bytes] = frozenset()
    is_secret: Judge = staticmethod(lambda _: False)


# Beside the class: a copy that writes to a class, or reads from one that has changed, has to write to many pages.
_changes: list[Changes] = [_NONE]
"""What copies of the dump that is being taken are to have."""
_given: list[Mapping[bytes, bytes] | None] = [None]
"""In a copy, what its launcher has given it."""


def record_start(is_secret: Judge) -> None:
    """
    Note what this process was started with, unless that was done before; the changes of an earlier dump are forgotten.

    Args:
        is_secret: Tells names of variables that are not to be kept, nor to be in copies.
    """
    found = _given[0] or (_State.start if _State.noted else _read(is_secret))
    _given[0] = None
    _State.noted = True
    _State.is_secret = staticmethod(is_secret)
    _changes[0] = _NONE
    if found is not None:
        secret = frozenset(name for name in found if is_secret(os.fsdecode(name)))
        _State.left_out |= secret
        _State.start = {name: value for name, value in found.items() if name not in secret}


def find_changes() -> Changes:
    """
    Find what the program has changed until now; copies are going to have it.

    Returns:
        The changes, none where it is not known what the process was started with.
    """
    if _State.start is None:
        return _NONE
    start, now = _State.start, _variables()
    added: dict[bytes, bytes] = {}
    changed: list[tuple[bytes, bytes, bytes | None]] = []
    for name in {**start, **now}:
        old, new = start.get(name), now.get(name)
        if old == new or not _is_of_the_program(name, new):
            continue
        if old is not None:
            changed.append((name, old, new))
        elif new is not None:
            added[name] = new
    _changes[0] = Changes(added, changed)
    return _changes[0]


def undo_changes() -> None:
    """Undo the changes: another program begins in this process, which is to make its own."""
    added, changed = find_changes()
    for name in added:
        del os.environb[name]
    for name, old, _ in changed:
        os.environb[name] = old
    _changes[0] = _NONE


def with_changes(env: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """
    Return an environment with the changes of the dump.

    Args:
        env: What the launcher gives; a further dump of this process tells by it what has changed.
    """
    _given[0] = env
    added, changed = _changes[0]
    variables = {**added, **env} if added else dict(env)
    for name, old, new in changed:
        if name in variables and variables[name] == old:
            if new is None:
                del variables[name]
            else:
                variables[name] = new
    return variables


def _is_of_the_program(name: bytes, value: bytes | None) -> bool:
    if name.startswith(_OURS) or name in _State.left_out or _State.is_secret(os.fsdecode(name)):
        return False
    return name != b"LC_CTYPE" or value not in _COERCED


def _variables() -> dict[bytes, bytes]:
    data: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001 - without its encoding
    return data


def _read(is_secret: Judge) -> dict[bytes, bytes] | None:
    """Read what the kernel laid out at exec; what is secret in it is read into one place, which is overwritten."""
    try:
        start, end = initial_block()
        if start == 0:
            return None
        block = bytearray(end - start)
        with open("/proc/self/environ", "rb", buffering=0) as file:
            size = file.readinto(block) if block else 0
    except OSError:  # hidden, as that of a process is whose program file has capabilities
        return None
    try:
        return _parse(block, is_secret) if size == len(block) else None
    finally:
        block[:] = bytes(len(block))


def _parse(block: bytearray, is_secret: Judge) -> dict[bytes, bytes] | None:
    """Return the variables, secret ones without their values; None where it is no environment any more."""
    if block and block[-1] != 0:
        return None
    variables: dict[bytes, bytes] = {}
    place = 0
    while place < len(block):
        end = block.index(0, place)
        equals = block.find(b"=", place, end)
        if equals <= place:
            return None
        name = bytes(memoryview(block)[place:equals])
        secret = is_secret(os.fsdecode(name))
        # Of two of one name the first counts, as in os.environ.
        variables.setdefault(name, b"" if secret else bytes(memoryview(block)[equals + 1 : end]))
        place = end + 1
    return variables


def initial_block() -> tuple[int, int]:
    """
    Return where the kernel laid out the environment at exec (proc_pid_stat(5), env_start and env_end).

    Returns:
        The addresses of its begin and end; both are 0 where they are hidden from this process.

    Raises:
        OSError: There is no /proc.
    """
    fields = stat()
    return int(fields[47]), int(fields[48])
