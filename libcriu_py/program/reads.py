"""
Which variables of the environment the program has read before the dump, and what they were.

What was made of them (the address of a service in a class, a backend that was chosen) is in each copy, whatever its own
environment says. So variables that modules outside of the standard library have read by name, through `os.environ` or
`os.getenv`, have to be as they were. To go through all of them or to copy them is to read none, and what the program
has set itself before is its own.

It begins where `checkpoint` is imported, or before all modules with ``libcriu-py snapshot``. No value is kept here:
it would be in the images.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.program import environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType


# Applied anew in each copy: by the hand-over, by resources, or compared apart (`start_variables`).
_APPLIED = frozenset({"TZ", "LANG"})
_APPLIED_PREFIXES = ("LC_", "PYTHON", "LIBCRIU_PY_")
_APPLIED_FOR_RICH = frozenset({"COLUMNS", "LINES", "NO_COLOR", "TERM", "COLORTERM", "FORCE_COLOR"})
_BETWEEN = frozenset({"os", "collections.abc", "_collections_abc", __name__})

READ_UNSET, READ_VALUE, READ_HASH, READ_DEFAULT = range(4)


class Read(NamedTuple):
    """A variable that the program has read before the dump."""

    name: str
    value: str
    """
    Its value, or the hash of that (`hash_of`) in hexadecimal, as the state says. The default is what the program has
    set where it found nothing: children of copies have it.
    """
    state: int


def hash_of(data: bytes) -> int:
    """Return 64 bits, FNV-1a, that the launcher also can."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value


_plain: Any = type(os.environ)
_found: dict[str, int | None] = {}
"""Names, with a hash of the value at the first read; None where it was not set."""
_own: set[str] = set()
"""Names that the program has set."""


class _Noting(_plain):  # type: ignore[misc]
    """`os.environ` while reads are noted."""

    def __getitem__(self, key: Any) -> Any:
        name = key if isinstance(key, str) else os.fsdecode(key)
        if not _State.passed(key) and name not in _found and name not in _own:
            _note(name, self._data.get(os.fsencode(name)), sys._getframe(1))  # noqa: SLF001
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        _own.add(os.fsdecode(key))

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(key)
        _own.add(os.fsdecode(key))

    def __iter__(self) -> Iterator[Any]:
        _State.keys, _State.copying = list(super().__iter__()), False
        for place, key in enumerate(_State.keys):
            _State.place = place
            yield key
        # dict() and `{**...}` get all names first, and then one value after the other.
        _State.place, _State.copying = 0, True


def _note(name: str, value: bytes | None, frame: FrameType | None) -> None:
    while frame is not None and frame.f_globals.get("__name__") in _BETWEEN:
        frame = frame.f_back
    module = str(frame.f_globals.get("__name__", "")) if frame is not None else ""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top == "libcriu_py":
        return
    if name in _APPLIED or name.startswith(_APPLIED_PREFIXES) or (top == "rich" and name in _APPLIED_FOR_RICH):
        return
    if module != "__main__" or _State.main:
        _found[name] = None if value is None else hash_of(value)


class _State:
    """
    What is known of the reader.

    Attributes:
        main: Whether the main module counts: copies of a prepared program run it anew.
        keys: What whoever went through all of them last was given.
        place: Which of these is the next.
        copying: Whether all were given already.
    """

    main = True
    keys: Sequence[object] = ()
    place = 0
    copying = False

    @classmethod
    def passed(cls, key: object) -> bool:
        """Return whether a name is read by someone who goes through all of them."""
        if cls.place >= len(cls.keys) or cls.keys[cls.place] != key:
            cls.keys = () if cls.copying else cls.keys
            return False
        cls.place += cls.copying
        return True


def begin(*, main: bool = True) -> None:
    """
    Begin to note what is read; a second time does nothing.

    Args:
        main: Whether the main module's own reads count.
    """
    if type(os.environ) is _plain:
        _State.main = main
        os.environ.__class__ = os.environb.__class__ = _Noting


def names() -> tuple[str, ...]:
    """Return the names of what was read so far."""
    return tuple(_found)


def add(name: str) -> None:
    """Note a variable that was read before anybody noted that."""
    if name not in _found and name not in _own:
        value = os.environ.get(name)
        _found[name] = None if value is None else hash_of(os.fsencode(value))


def end() -> None:
    """Note no more, and leave `os.environ` as it was before; what was found stays."""
    if type(os.environ) is _Noting:
        os.environ.__class__ = os.environb.__class__ = _plain


def found() -> tuple[Read, ...]:
    """Return what was read, with values but those of secrets and of variables that have changed since."""
    reads = []
    for name, digest in sorted(_found.items()):
        now = os.environ.get(name)
        is_secret = now is not None and environment.is_secret(name, os.fsencode(now))
        if digest is None:
            reads.append(Read(name, "", READ_UNSET) if now is None or is_secret else Read(name, now, READ_DEFAULT))
        elif now is None or is_secret or hash_of(os.fsencode(now)) != digest:
            reads.append(Read(name, f"{digest:016x}", READ_HASH))
        else:
            reads.append(Read(name, now, READ_VALUE))
    return tuple(reads)
