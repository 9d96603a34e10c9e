"""
The launch record of a snapshot: flat, versioned and checksummed, so that the launcher maps it and needs no parser.

    header    magic, CRC-32 of the rest, format, size, protocol of the hand-over
    command   the conventional command, with its own checksum: usable if the rest is damaged
    lists     arrays of rows of fixed width, and the NUL-terminated texts to which they refer
    facts     one such row: texts, places of the lists, and numbers

Everything is little-endian. The launcher's structures are in restore/record.h. The manifest has further facts for
people and Python.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.program.main import Program
from libcriu_py.program.reads import Read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from libcriu_py.program.main import Kind

LAUNCH = "launch"
MANIFEST = "manifest.json"
FORMAT = 7
PROTOCOL = 3
"""The version of the request to a copy (`snapshot.request`)."""
VERSION = "0.1.0"
"""The version of this package, as in pyproject.toml."""
MODES = (None, "root", "capability", "rootless")
"""The privilege mode of the dump, by its number in the record."""
ENGINES = ("criu", "native")
"""What dumped the process and restores it, by its number in the record."""

_MAGIC = b"\x93launch\n"
_KINDS: tuple[Kind | None, ...] = (None, "script", "module", "command", "interpreter")
"""The kind of main program, by its number (restore/interpreter.c); None if the program checkpointed itself."""
_REDUCED, _LEADER, _CODE, _WARNS, _ONE_AT_A_TIME = 1, 2, 4, 8, 16
_LARGEST_SMALL = 64 << 10
"""Bytes of a file that is read at each start, as in restore/sums.c."""
_HEADER = struct.Struct("<8sIIQIIIIII")
_COVERED = 12
"""Offset of what the checksum covers, after magic and checksum."""
_COMMAND_COVERED = 32
"""Offset of what the command's checksum covers, after that checksum."""

# Formats of rows, as for `struct`, except that `s` is the offset and length of a text; texts come first.
_TEXTS, _LISTS = 10, 12
_FACTS = "s" * _TEXTS + "II" * _LISTS + "QqqIIIII4x"
_NUMBER = "I"
_PAIR = "ss"
_OPTION = "sII"
_READ = "ssI4x"
_MEMORY = "ssQ"
_FILE = "sQII"
_COMPARED = "sQqI4x"
_LISTENER = "sIIII"


class MemoryFile(NamedTuple):
    """A file from which the memory of copies is mapped."""

    file: str
    """Its path relative to the snapshot."""
    key: str
    """Its path in the images, without the leading slash."""
    size: int


class FileEntry(NamedTuple):
    """A file of the snapshot."""

    size: int
    sum: int = 0
    """Its CRC-32C."""

    @property
    def is_large(self) -> bool:
        """Whether a start reads it only where it has been touched; smaller ones are read at each start."""
        return self.size > _LARGEST_SMALL


ABSENT = 2**64 - 1
"""The size of a file that was looked for, and is not there."""


class ComparedFile(NamedTuple):
    """A file outside the snapshot that must not have changed since the dump, or a directory of `sys.path`."""

    path: str
    size: int
    """Of a directory, a digest of what could be imported from there (`installed`); or `ABSENT`."""
    mtime_ns: int
    mode: int = 0
    """`st_mode`; 0 if it does not matter."""


class Listener(NamedTuple):
    """An address that sockets of copies have, which one copy at a time can have."""

    address: str
    """A numeric host, or a path; an abstract name begins with `@`."""
    family: int
    """As in `socket`; so is `type`."""
    type: int
    port: int
    options: int
    """Of those below: what the program has set for the socket."""


REUSE_ADDRESS, REUSE_PORT, ONLY_IPV6 = 1, 2, 4


class Launch(NamedTuple):
    """What a restore needs to know of a snapshot; fields that are known only after the dump have a default."""

    command: tuple[str, ...]
    """The conventional command line up to the program's arguments."""
    program: Program | None
    """The main program; None if the program checkpointed itself."""
    arch: str
    cpu_flags: tuple[str, ...]
    variables: Mapping[str, str]
    """Variables that an interpreter reads only at its start (`program.start_variables`)."""
    uid: int
    gid: int
    groups: tuple[int, ...]
    capabilities: int
    """The permitted capabilities, as a bit mask."""
    reduced_bounding: bool
    mode: str | None
    session_leader: bool
    slots: tuple[str, ...]
    """The paths of the slots in the images, without the leading slash: stdin, stdout, stderr, request."""
    images_key: str
    """The path of the images directory in the images, without the leading slash."""
    restore_options: Mapping[str, bool | int]
    clocks: tuple[int, int] = (0, 0)
    """CLOCK_MONOTONIC and CLOCK_BOOTTIME in ns from which those of copies go on; 0 for the machine's own clocks."""
    pids: tuple[int, ...] = ()
    """Of all threads, in the images; the program's is the first."""
    memory_files: tuple[MemoryFile, ...] = ()
    maps_code: bool = False
    """Whether library code is mapped from these files."""
    files: Mapping[str, FileEntry] = {}
    """Size and sum of each file of the snapshot but record, manifest and log, by relative path."""
    mapped: tuple[ComparedFile, ...] = ()
    sources: tuple[ComparedFile, ...] = ()
    names: tuple[str, ...] = ()
    """Of modules at the top."""
    directories: tuple[ComparedFile, ...] = ()
    """Those of `sys.path`."""
    packages: tuple[ComparedFile, ...] = ()
    """A file of the metadata of each package that was imported."""
    reads: tuple[Read, ...] = ()
    warns: bool = False
    """Whether another value of what was read is only to be told of."""
    engine: str = "criu"
    listeners: tuple[Listener, ...] = ()
    one_at_a_time: bool = False
    """Whether criu, for a moment, makes files that have the same names in all restores."""
    protocol: int = PROTOCOL
    package_version: str = VERSION
    """The version of the package that made it."""


class RecordError(ValueError):
    """A record cannot be used; the message follows its path."""


def _checksum(data: bytes | memoryview) -> int:
    import zlib  # imported late: its shared library must not be in each image

    return zlib.crc32(data)


def _layout(form: str) -> struct.Struct:
    return struct.Struct("<" + form.replace("s", "II"))


# ---- writing ----------------------------------------------------------------


class _Writer:
    """A record under construction."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def rows(self, form: str, rows: Iterable[tuple[str | int, ...]]) -> tuple[int, int]:
        """Append a list; return its offset and number of rows."""
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
    Return the bytes of a record.

    Args:
        launch: Its content.

    Raises:
        ValueError: A text contains a NUL, or a number is too large.
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
        (_FILE, ((name, *file, file.is_large) for name, file in launch.files.items())),
        (_COMPARED, launch.mapped),
        (_COMPARED, launch.sources),
        (_COMPARED, launch.directories),
        (_COMPARED, launch.packages),
        (_READ, launch.reads),
        (_LISTENER, launch.listeners),
    )
    flags = _REDUCED * launch.reduced_bounding | _LEADER * launch.session_leader
    flags |= _CODE * launch.maps_code | _WARNS * launch.warns | _ONE_AT_A_TIME * launch.one_at_a_time
    names = "".join(f"/{name}" for name in launch.names) + "/"
    return (
        *(launch.package_version, launch.arch, " ".join(launch.cpu_flags), program, launch.images_key, *launch.slots),
        names,
        *(number for form, rows in lists for number in record.rows(form, rows)),
        *(launch.capabilities, *launch.clocks, launch.uid, launch.gid, MODES.index(launch.mode), flags),
        ENGINES.index(launch.engine),
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
        data: Its bytes.

    Raises:
        RecordError: This is not a record, it is damaged, or it needs another version of this package.
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
    Return the command of a record that may be damaged.

    Args:
        data: The bytes that there are.

    Returns:
        The command; None if it is damaged too.
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
    version, arch, cpu_flags, value, images_key, *slots, names = facts[:_TEXTS]
    *where, capabilities, monotonic, boottime, uid, gid, mode, flags, engine = facts[_TEXTS:]
    if mode >= len(MODES) or engine >= len(ENGINES):
        raise RecordError(_INCOMPLETE)
    forms = (_NUMBER, _NUMBER, _PAIR, _OPTION, _MEMORY, _FILE, *[_COMPARED] * 4, _READ, _LISTENER)
    pids, groups, variables, options, memory, files, mapped, sources, directories, packages, reads, listeners = (
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
        files={name: FileEntry(size, total) for name, size, total, _ in files},
        mapped=tuple(map(ComparedFile._make, mapped)),
        sources=tuple(map(ComparedFile._make, sources)),
        names=tuple(filter(None, names.split("/"))),
        directories=tuple(map(ComparedFile._make, directories)),
        packages=tuple(map(ComparedFile._make, packages)),
        reads=tuple(map(Read._make, reads)),
        warns=bool(flags & _WARNS),
        engine=ENGINES[engine],
        listeners=tuple(map(Listener._make, listeners)),
        one_at_a_time=bool(flags & _ONE_AT_A_TIME),
        protocol=_HEADER.unpack_from(data)[4],
        package_version=version,
    )
