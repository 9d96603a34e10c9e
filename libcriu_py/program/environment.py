"""
The changes that a program makes to its environment, applied again in copies over the environment of their launcher.

A conventionally started program gets its launcher's environment and changes it: modules do when they are imported
(`os.environ.setdefault("DJANGO_SETTINGS_MODULE", ...)`), and copies do not import them again. So the dump records how
the environment differs from the one that the process started with, and each copy repeats the changes:

- A variable that the program added is set, unless the launcher has set it.
- A variable that the program changed or deleted is changed again if the launcher gives it its original value.

Otherwise the launcher's value stays: nobody knows whether the program would have overwritten it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.linux.files import stat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Judge = Callable[[str, bytes | memoryview], bool]

_OURS = b"LIBCRIU_PY_"
_COERCED = frozenset({b"C.UTF-8", b"C.utf8", b"UTF-8"})
"""Values that the interpreter gives LC_CTYPE when it starts (PEP 538), and each copy again."""


class Changes(NamedTuple):
    """How the environment differs from that at the start."""

    added: dict[bytes, bytes]
    """New variables and their values."""
    changed: list[tuple[bytes, bytes, bytes | None]]
    """Changed variables: name, original value, and new value; None if deleted."""


_NONE = Changes({}, [])


class _State:
    """
    What is known of this process.

    Attributes:
        noted: Whether the kernel's copy was read already. The program may overwrite it later, as setproctitle does.
        start: The variables that the process was started with, without secrets; None if unknown.
        left_out: Names of the secrets.
        is_secret: Returns whether a variable that the program sets is a secret.
    """

    noted = False
    start: Mapping[bytes, bytes] | None = None
    left_out: frozenset[bytes] = frozenset()
    is_secret: Judge = staticmethod(lambda *_: False)


# Not in the class: when a copy writes to a class, or reads a changed one, it dirties many pages.
_changes: list[Changes] = [_NONE]
"""The changes that copies of the current dump repeat."""
_given: list[Mapping[bytes, bytes] | None] = [None]
"""In a copy, the environment that its launcher gave it."""
_given_later: list[Callable[[], Mapping[bytes, bytes] | None]] = []
"""What returns it where that was not read yet."""


def record_start(is_secret: Judge, is_secret_of_program: Judge | None = None) -> None:
    """
    Record the environment that this process was started with, unless done before, and forget an earlier dump's changes.

    Args:
        is_secret: Returns, by name and value, whether a variable is a secret, which must be neither kept nor in copies.
        is_secret_of_program: The same for variables that the program sets; default: `is_secret`.
    """
    if _given_later:
        _given[0] = _given_later.pop()() or _given[0]
    found: Mapping[bytes, bytes | None] | None = _given[0] or (_State.start if _State.noted else _read(is_secret))
    _given[0] = None
    _State.noted = True
    _State.is_secret = staticmethod(is_secret_of_program or is_secret)
    _changes[0] = _NONE
    if found is not None:
        known = ((name, value) for name, value in found.items() if value is not None)
        kept = {name: value for name, value in known if not is_secret(os.fsdecode(name), value)}
        _State.left_out |= frozenset(found.keys() - kept.keys())
        _State.start = kept


def is_secret(name: str, value: bytes) -> bool:
    """Return whether a variable is a secret, whose value must not be kept."""
    return os.fsencode(name) in _State.left_out or _State.is_secret(name, value)


def expect_given(read: Callable[[], Mapping[bytes, bytes] | None]) -> None:
    """Set what returns, in a copy, the environment that its launcher gave it, if somebody asks."""
    _given_later[:] = [read]


def find_changes() -> Changes:
    """
    Find the changes that the program has made so far, for copies to repeat.

    Returns:
        The changes; none if the environment at the start is unknown.
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


def changes() -> Changes:
    """Return the changes, as `find_changes` found them."""
    return _changes[0]


def added_variables() -> Mapping[bytes, bytes]:
    """Return the variables that the program has added, as `find_changes` found them."""
    return _changes[0].added


def undo_changes() -> None:
    """Undo the changes, because another program starts in this process and makes its own."""
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
        env: The launcher's environment; a further dump of this process finds its changes against it.
    """
    _given[0] = env
    _given_later.clear()
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
    if name.startswith(_OURS) or name in _State.left_out or _State.is_secret(os.fsdecode(name), value or b""):
        return False
    return name != b"LC_CTYPE" or value not in _COERCED


def _variables() -> dict[bytes, bytes]:
    data: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001 - without its encoding
    return data


def _read(is_secret: Judge) -> dict[bytes, bytes | None] | None:
    """Read the environment that the kernel laid out at exec, and overwrite the buffer, which may hold secrets."""
    try:
        start, end = initial_block()
        if start == 0:
            return None
        block = bytearray(end - start)
        with open("/proc/self/environ", "rb", buffering=0) as file:
            size = file.readinto(block) if block else 0
    except OSError:  # hidden, as for a process whose program file has capabilities
        return None
    try:
        return _parse(block, is_secret) if size == len(block) else None
    finally:
        block[:] = bytes(len(block))


def _parse(block: bytearray, is_secret: Judge) -> dict[bytes, bytes | None] | None:
    """Return the variables, None for a secret's value; None if the block no longer holds an environment."""
    if block and block[-1] != 0:
        return None
    variables: dict[bytes, bytes | None] = {}
    start = 0
    while start < len(block):
        end = block.index(0, start)
        equals = block.find(b"=", start, end)
        if equals <= start:
            return None
        name = bytes(memoryview(block)[start:equals])
        with memoryview(block)[equals + 1 : end] as value:  # judged without being copied
            # The first of several entries with one name counts, as in os.environ.
            variables.setdefault(name, None if is_secret(os.fsdecode(name), value) else bytes(value))
        start = end + 1
    return variables


def initial_block() -> tuple[int, int]:
    """
    Return where the kernel laid out the environment at exec (proc_pid_stat(5), env_start and env_end).

    Returns:
        Its start and end addresses; both 0 if they are hidden from this process.

    Raises:
        OSError: There is no /proc.
    """
    fields = stat()
    return int(fields[47]), int(fields[48])
