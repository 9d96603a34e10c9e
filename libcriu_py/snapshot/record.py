"""
The record of a snapshot that the launcher reads: flat, versioned and checksummed, to be mapped and used as it is.

    header    magic, CRC-32 of the rest, format, size; protocol of the hand-over
    command   the conventional command, with a checksum of its own: of use where the rest is damaged
    lists     counted rows of fixed width, and the texts that these name: counted, each with a NUL behind it
    facts     one such row: texts, where the lists are, and numbers

All is little-endian. The structures and their other reader are in restore/record.h; people and Python find the rest of
what is known of a snapshot in its manifest.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.program.main import Program

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from libcriu_py.program.main import Kind

FORMAT = 3
PROTOCOL = 3
"""Of the request that a copy is handed (`request`)."""
VERSION = "0.1.0"
"""Of this package, as in pyproject.toml."""
MODES = (None, "root", "capability", "rootless")
"""How the dump was allowed, by their numbers in the record."""

_MAGIC = b"\x93launch\n"
_KINDS: tuple[Kind | None, ...] = (None, "script", "module", "command")
"""What the main program is, by its number; none where the program checkpointed itself."""
_REDUCED, _LEADER, _CODE = 1, 2, 4
_HEADER = struct.Struct("<8sIIQIIIIII")
_COVERED = 12
"""Where what the checksum covers begins: behind magic and checksum."""
_COMMAND_COVERED = 32
"""The same of the command's own checksum, which stands before it."""

# Rows, as for `struct`, but that `s` is a text, of which the row has place and length; texts come first.
_TEXTS, _LISTS = 9, 8
_FACTS = "s" * _TEXTS + "II" * _LISTS + "QqqIIII"
_NUMBER = "I"
_PAIR = "ss"
_OPTION = "sII"
_MEMORY = "ssQ"
_FILE = "sQ"
_COMPARED = "sQqI4x"


class MemoryFile(NamedTuple):
    """A file from which the memory of copies is mapped."""

    file: str
    """Its path in the snapshot."""
    key: str
    """Its name in the images."""
    size: int


class ComparedFile(NamedTuple):
    """A file outside of the snapshot that has to be as it was at the dump."""

    path: str
    size: int
    mtime_ns: int
    mode: int = 0
    """With its type, as in `st_mode`; 0 where it does not matter."""


class Launch(NamedTuple):
    """What a restore needs to know of a snapshot; what is known after the dump only has a default."""

    command: tuple[str, ...]
    """The conventional command line up to the program's arguments."""
    program: Program | None
    """The main program; None when it checkpointed itself."""
    arch: str
    cpu_flags: tuple[str, ...]
    variables: Mapping[str, str]
    """Those that an interpreter reads at its start only (`python_variables`)."""
    uid: int
    gid: int
    groups: tuple[int, ...]
    capabilities: int
    """Those that were permitted, by bit."""
    reduced_bounding: bool
    mode: str | None
    session_leader: bool
    slots: tuple[str, ...]
    """The names of stdin, stdout, stderr and the request in the images."""
    images_key: str
    """The name of the directory of images in the images."""
    restore_options: Mapping[str, bool | int]
    clocks: tuple[int, int] = (0, 0)
    """The readings, monotonic and since the boot, in ns, from which those of copies go on; 0 for the machine's own."""
    pids: tuple[int, ...] = ()
    memory_files: tuple[MemoryFile, ...] = ()
    maps_code: bool = False
    """Whether code of libraries is mapped from these."""
    files: Mapping[str, int] = {}
    """The size of each file of the snapshot."""
    mapped: tuple[ComparedFile, ...] = ()
    sources: tuple[ComparedFile, ...] = ()
    protocol: int = PROTOCOL
    package_version: str = VERSION
    """Of the package that made it."""


class RecordError(ValueError):
    """What is wrong with a record; the message goes behind its path."""


def _checksum(data: bytes | memoryview) -> int:
    import zlib  # an extension with a library of its own, which is not to be in each image

    return zlib.crc32(data)


def _layout(form: str) -> struct.Struct:
    return struct.Struct("<" + form.replace("s", "II"))


# ---- writing ----------------------------------------------------------------


class _Writer:
    """A record that grows."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def rows(self, form: str, rows: Iterable[tuple[str | int, ...]]) -> tuple[int, int]:
        """Add a list; returns where it is, and how many rows it has."""
        layout = _layout(form)
        packed = [layout.pack(*(number for value in row for number in self._numbers(value))) for row in rows]
        self.data += bytes(-len(self.data) % 8)
        at = len(self.data)
        self.data += b"".join(packed)
        return at, len(packed)

    def _numbers(self, value: str | int) -> tuple[int, ...]:
        if not isinstance(value, str):
            return (value,)
        at = len(self.data)
        self.data += _encoded(value)
        return at, len(self.data) - at - 1


def _encoded(text: str) -> bytes:
    data = os.fsencode(text)
    if b"\0" in data:
        message = f"no text in a record can have a NUL in it: {text!r}"
        raise ValueError(message)
    return data + b"\0"


def encode(launch: Launch) -> bytes:
    """
    Return the record.

    Args:
        launch: What is to be in it.

    Raises:
        ValueError: A text has a NUL in it, or a number does not fit.
    """
    command = b"".join(map(_encoded, launch.command))
    kind, value = launch.program or (None, "")
    record = _Writer(bytes(_HEADER.size) + command)
    try:
        facts, _ = record.rows(_FACTS, [_facts_of(launch, value, record)])
        about = struct.pack("<IIII", len(command), len(launch.command), _KINDS.index(kind), facts)
        checksum = _checksum(about + command)
        covered = struct.pack("<IQII", FORMAT, len(record.data), launch.protocol, checksum) + about
    except struct.error as error:
        message = f"a number does not fit into a record: {error}"
        raise ValueError(message) from None
    covered += record.data[_HEADER.size :]
    return _MAGIC + struct.pack("<I", _checksum(covered)) + covered


def _facts_of(launch: Launch, program: str, record: _Writer) -> tuple[str | int, ...]:
    options = ((name, int(value), type(value) is not bool) for name, value in launch.restore_options.items())
    lists = (
        (_NUMBER, zip(launch.pids)),
        (_NUMBER, zip(launch.groups)),
        (_PAIR, launch.variables.items()),
        (_OPTION, options),
        (_MEMORY, launch.memory_files),
        (_FILE, launch.files.items()),
        (_COMPARED, launch.mapped),
        (_COMPARED, launch.sources),
    )
    flags = _REDUCED * launch.reduced_bounding | _LEADER * launch.session_leader | _CODE * launch.maps_code
    return (
        *(launch.package_version, launch.arch, " ".join(launch.cpu_flags), program, launch.images_key, *launch.slots),
        *(number for form, rows in lists for number in record.rows(form, rows)),
        *(launch.capabilities, *launch.clocks, launch.uid, launch.gid, MODES.index(launch.mode), flags),
    )


# ---- reading ----------------------------------------------------------------


_INCOMPLETE = "is damaged (something that it names is not in it)"


def _rows(data: bytes, form: str, offset: int, count: int = 1) -> Iterator[tuple[Any, ...]]:
    """Read the rows of a list."""
    layout, texts = _layout(form), 2 * form.count("s")
    end = offset + count * layout.size
    if offset % 8 or end > len(data):
        raise RecordError(_INCOMPLETE)
    for row in layout.iter_unpack(data[offset:end]):
        yield *(_text(data, *row[at : at + 2]) for at in range(0, texts, 2)), *row[texts:]


def _text(data: bytes, offset: int, length: int) -> str:
    text = data[offset : offset + length + 1]
    if len(text) != length + 1 or text.find(b"\0") != length:
        raise RecordError(_INCOMPLETE)
    return os.fsdecode(text[:-1])


def decode(data: bytes) -> Launch:
    """
    Read a record.

    Args:
        data: All of it.

    Raises:
        RecordError: It is none, it is damaged, or another version of this package is needed to read it.
    """
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        message = "is not a launch record of libcriu_py"
        raise RecordError(message)
    _, checksum, version, size, protocol, *_ = _HEADER.unpack_from(data)
    if size != len(data):
        message = f"is damaged ({len(data)} bytes instead of {size})"
        raise RecordError(message)
    if _checksum(memoryview(data)[_COVERED:]) != checksum:
        message = "is damaged (its checksum differs)"
        raise RecordError(message)
    if version != FORMAT:
        message = f"has format {version}, this version of libcriu_py reads format {FORMAT}"
        raise RecordError(message)
    launch = _facts(data)
    if protocol != PROTOCOL:
        message = (
            f"is of libcriu_py {launch.package_version}, whose copies speak protocol {protocol}, "
            f"and this version speaks protocol {PROTOCOL}"
        )
        raise RecordError(message)
    return launch


def command_of_damaged(data: bytes) -> tuple[str, ...] | None:
    """
    Return the command of a record of which the rest may be damaged.

    Args:
        data: What is there of it.

    Returns:
        The command; None where it is damaged too.
    """
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        return None
    *_, checksum, size, count, _, _ = _HEADER.unpack_from(data)
    covered = data[_COMMAND_COVERED : _HEADER.size + size]
    words = data[_HEADER.size : _HEADER.size + size].split(b"\0")
    if len(words) != count + 1 or count == 0 or words[-1] or _checksum(covered) != checksum:
        return None
    return tuple(map(os.fsdecode, words[:-1]))


def _facts(data: bytes) -> Launch:
    *_, kind, at = _HEADER.unpack_from(data)
    command = command_of_damaged(data)
    if command is None or kind >= len(_KINDS):
        raise RecordError(_INCOMPLETE)
    (facts,) = _rows(data, _FACTS, at)
    version, arch, cpu_flags, value, images_key, *slots = facts[:_TEXTS]
    *where, capabilities, monotonic, boottime, uid, gid, mode, flags = facts[_TEXTS:]
    if mode >= len(MODES):
        raise RecordError(_INCOMPLETE)
    forms = (_NUMBER, _NUMBER, _PAIR, _OPTION, _MEMORY, _FILE, _COMPARED, _COMPARED)
    pids, groups, variables, options, memory, files, mapped, sources = (
        _rows(data, form, *place) for form, place in zip(forms, zip(where[::2], where[1::2], strict=True), strict=True)
    )
    name = _KINDS[kind]
    return Launch(
        command=command,
        program=None if name is None else Program(name, value),
        arch=arch,
        cpu_flags=tuple(cpu_flags.split()),
        variables=dict(variables),
        uid=uid,
        gid=gid,
        groups=tuple(group for (group,) in groups),
        capabilities=capabilities,
        reduced_bounding=bool(flags & _REDUCED),
        mode=MODES[mode],
        session_leader=bool(flags & _LEADER),
        slots=tuple(slots),
        images_key=images_key,
        restore_options={name: number if is_number else bool(number) for name, number, is_number in options},
        clocks=(monotonic, boottime),
        pids=tuple(pid for (pid,) in pids),
        memory_files=tuple(map(MemoryFile._make, memory)),
        maps_code=bool(flags & _CODE),
        files=dict(files),
        mapped=tuple(map(ComparedFile._make, mapped)),
        sources=tuple(map(ComparedFile._make, sources)),
        protocol=_HEADER.unpack_from(data)[4],
        package_version=version,
    )
