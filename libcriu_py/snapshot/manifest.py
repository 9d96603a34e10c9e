"""
The snapshot directory, its launch record and its manifest.

    snap/launch          what a restore needs, for the launcher (`snapshot.record`)
    snap/manifest.json   further facts for people; written last
    snap/images/         criu's images
    snap/plan            of the native engine, in their place: what memory and descriptors copies have
    snap/memory.img      memory that copies map instead of copying it; optional
    snap/memory/         blocks of memory that are in a store; optional
    snap/working-set     pages that copies copy ahead; optional
    snap/slots/          placeholders for stdin, stdout, stderr and the request, for criu
    snap/dump.log        criu's log

Images and memory.img hold all memory of the program, and restoring them executes it. So the directory has mode 0700,
and one that another user owns or can write to is refused.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from libcriu_py.errors import SnapshotError, SnapshotUnsafe
from libcriu_py.linux.maps import mapped_ranges
from libcriu_py.snapshot import record as launch_record, sums
from libcriu_py.snapshot.identity import Mismatch, mismatches
from libcriu_py.snapshot.record import LAUNCH, MANIFEST, ComparedFile, RecordError
from libcriu_py.snapshot.remains import MARKER
from libcriu_py.snapshot.trust import opened, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from libcriu_py.program.main import Program
    from libcriu_py.snapshot.record import FileEntry, Launch, MemoryFile

IMAGES = "images"
SLOTS_DIRECTORY = "slots"
SLOTS = ("stdin", "stdout", "stderr", "request")
MEMORY = "memory.img"
SHARED_DIRECTORY = "memory"
WORKING_SET = "working-set"
DUMP_LOG = "dump.log"
_BLOCK = 512
"""Bytes of a block of `st_blocks` (stat(2))."""
_REQUIRED = ("machine", "python", "created")
_TEXT = (str, type(None))
_NUMBER = (int, float)
_LATEST = 1 << 40
"""Seconds since the epoch that a time may be."""
_MEMORY = {
    "?kind": str,
    "?why": str,
    "?owners": {"*": int},
    "?census": {"*": [int]},
    "?working_set": {"ahead": int, "bytes": int},
}
_FORMS: dict[str, Any] = {
    "criu_version": str,
    "machine": {"*": _TEXT},
    "python": {"version": str, "executable": str, "*": str},
    "created": _NUMBER,
    "why_not_native": _TEXT,
    "argv": [str],
    "cwd": _TEXT,
    "details": dict,
    "memory": _MEMORY,
}
"""What people are told of a snapshot, by name: types, and those of entries."""


class Snapshot:
    """
    A snapshot on disk, as read by `Snapshot.open`.

    Thread safety: immutable, and may be shared.
    """

    def __init__(self, path: str, launch: Launch, manifest: Mapping[str, Any]) -> None:
        """Hold a path, its launch record and its manifest; use `open` to read them."""
        self.path = path
        self.launch = launch
        self.manifest = manifest

    def __repr__(self) -> str:
        """Show the path."""
        return f"<Snapshot {self.path!r}>"

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Snapshot:
        """
        Read a snapshot's record and manifest.

        Args:
            path: The snapshot's directory.

        Returns:
            The snapshot.

        Raises:
            SnapshotError: There is no snapshot, or it is damaged or has another format.
            SnapshotUnsafe: Another user could have written it.
        """
        directory = os.path.realpath(os.fspath(path))
        at = os.path.join(directory, LAUNCH)
        try:
            with opened(directory) as fd:
                launch = launch_record.decode(read(fd, at))
                at = os.path.join(directory, MANIFEST)
                manifest = json.loads(read(fd, at))
        except (FileNotFoundError, NotADirectoryError):
            if at.endswith(LAUNCH) and os.path.exists(os.path.join(directory, MANIFEST)):
                message = f"{path} is of a format that older versions of libcriu_py had; make the snapshot anew"
            else:
                message = _no_snapshot(os.fspath(path))
            raise SnapshotError(message) from None
        except PermissionError as error:
            if isinstance(error, SnapshotUnsafe):
                raise
            message = f"{path} cannot be read by this user: {error.strerror}; a snapshot belongs to who made it"
            raise SnapshotUnsafe(message) from None
        except OSError as error:
            message = f"{at} cannot be read ({error.strerror}); make the snapshot anew"
            raise SnapshotError(message) from None
        except RecordError as error:
            message = f"{at} {error}; make the snapshot anew"
            raise SnapshotError(message) from None
        except (ValueError, RecursionError) as error:
            message = f"{at} is damaged ({error}); make the snapshot anew"
            raise SnapshotError(message) from None
        return cls(directory, launch, _checked(manifest, at))

    @property
    def engine(self) -> str:
        """What dumped the process and restores it: "native" or "criu"."""
        return self.launch.engine

    @property
    def images(self) -> str:
        """The directory of criu's images, if that dumped the process."""
        return os.path.join(self.path, IMAGES)

    @property
    def program(self) -> Program | None:
        """The main program for which the snapshot was prepared; None if the program checkpointed itself."""
        return self.launch.program

    @property
    def command(self) -> list[str]:
        """The conventional command line up to the program's arguments."""
        return list(self.launch.command)

    @property
    def pids(self) -> list[int]:
        """The process and thread ids in the images."""
        return list(self.launch.pids)

    @property
    def details(self) -> Mapping[str, Any]:
        """What the maker of the snapshot recorded in it."""
        details: Mapping[str, Any] = self.manifest.get("details") or {}
        return details

    @property
    def memory_key(self) -> str | None:
        """The path of `memory.img` in the images, without the leading slash; None if no memory is mapped."""
        return self.launch.memory_files[0].key if self.launch.memory_files else None

    @property
    def memory_files(self) -> list[MemoryFile]:
        """The files that memory is mapped from: `memory.img`, and those in a store."""
        return list(self.launch.memory_files)

    @property
    def files(self) -> dict[str, FileEntry]:
        """Size and sum of every file except record, manifest and log."""
        return dict(self.launch.files)

    def check(self) -> list[Mismatch]:
        """
        Compare this machine with the one of the dump.

        Returns:
            The differences; a restore is safe if none is fatal.

        Raises:
            CriuError: The launcher, which compares, was not built.
        """
        return mismatches(self)

    def verify(self) -> list[Mismatch]:
        """
        Read all files of the snapshot but its log, and compare them with their sums.

        Where nothing is wrong, starts on this boot trust the large ones until they are touched.

        Returns:
            What is wrong.
        """
        return sums.verify(self)


def dump_stats(path: str) -> Mapping[str, int]:
    """
    Return statistics of a dump: times in microseconds, counts of pages; of a native one, how many it has written.

    Args:
        path: The snapshot.

    Raises:
        ImageError: Those of criu cannot be read.
    """
    images = os.path.join(path, IMAGES)
    if os.path.isdir(images):
        from libcriu_py.images import readers

        return readers.dump_stats(images)
    written = os.stat(os.path.join(path, MEMORY)).st_blocks * _BLOCK
    return {"pages_written": written // os.sysconf("SC_PAGE_SIZE")}


def refuse_native(snapshot: Snapshot, why: str) -> None:
    """
    Refuse to rewrite a snapshot of the native engine.

    Args:
        snapshot: The snapshot.
        why: The reason.

    Raises:
        SnapshotError: It is one.
    """
    if snapshot.engine == "native":
        message = f"{snapshot.path} is of the native engine: {why}"
        raise SnapshotError(message)


def refuse_damaged(snapshot: Snapshot) -> None:
    """
    Refuse to rewrite a snapshot whose files do not match its manifest.

    Raises:
        SnapshotError: A file does not match.
    """
    damaged = snapshot.verify()
    if damaged:
        message = f"{snapshot.path} is damaged: {damaged[0].text}; make the snapshot anew"
        raise SnapshotError(message)


def _no_snapshot(path: str) -> str:
    """Return what stands where a snapshot should, and how to make one; the launcher's words (restore/snapshot.c)."""
    if os.path.isfile(path):
        what = f"it is a file; if it is a program, make its snapshot with: libcriu-py snapshot {path}"
    else:
        what = f"it has no {MANIFEST}" if os.path.exists(path) else "there is no such directory"
        what += f"; make one with: libcriu-py snapshot -o {path} ..."
    return f"{path} is no snapshot: {what}"


def _checked(manifest: object, path: str) -> dict[str, Any]:
    if not isinstance(manifest, dict):
        message = f"{path} is not a manifest of libcriu_py; make the snapshot anew"
        raise SnapshotError(message)
    missing = [name for name in _REQUIRED if name not in manifest]
    if missing:
        message = f"{path} lacks {', '.join(missing)}; make the snapshot anew"
        raise SnapshotError(message)
    for name, form in _FORMS.items():
        is_good = name not in manifest or _has_form(manifest[name], form)
        if not is_good or (name == "created" and not 0 <= manifest[name] < _LATEST):
            message = f"{path} is damaged (what it says of {name} cannot be); make the snapshot anew"
            raise SnapshotError(message)
    return manifest


def _has_form(value: object, form: Any) -> bool:
    """
    Return whether a value has a form.

    Args:
        value: What JSON has.
        form: A type or several; or those of the entries of an object by name, "?" before those that may be missing and
            "*" for all others; or a list of one, that of all items of an array.
    """
    if isinstance(form, list):
        return isinstance(value, list) and all(_has_form(item, form[0]) for item in value)
    if not isinstance(form, dict):
        return isinstance(value, form)
    if not isinstance(value, dict) or any(name not in value for name in form if name[0] not in "?*"):
        return False
    others = form.get("*", object)
    return all(_has_form(item, form.get(name, form.get(f"?{name}", others))) for name, item in value.items())


def sha256(path: str) -> str:
    """Return the SHA-256 digest of a file, in hexadecimal."""
    import hashlib

    digest = hashlib.sha256()
    block = bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(memoryview(block)[:count])
    return digest.hexdigest()


def files_of(directory: str) -> dict[str, FileEntry]:
    """Return size and sum of every file of a snapshot, except record, manifest and log, by relative path."""
    found: dict[str, FileEntry] = {}
    for base, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(base, name)
            relative = os.path.relpath(path, directory)
            if relative not in {LAUNCH, MANIFEST, DUMP_LOG, MARKER}:
                found[relative] = sums.entry(path)
    return dict(sorted(found.items()))


def mapped_files(pids: Iterable[int], without: Sequence[str] = ()) -> tuple[ComparedFile, ...]:
    """
    List the regular files mapped by processes, with size and mtime in nanoseconds.

    Args:
        pids: The processes.
        without: Path prefixes to leave out.

    Returns:
        An entry for each file, by path.
    """
    paths = {mapped.path for pid in pids for mapped in mapped_ranges(pid) if mapped.path.startswith("/")}
    entries: list[ComparedFile] = []
    for path in sorted(paths):
        if path.endswith(" (deleted)") or path.startswith(tuple(without)):
            continue
        try:
            status = os.stat(path)
        except OSError:
            continue  # a device, or in another namespace: criu reports it
        entries.append(ComparedFile(path, status.st_size, status.st_mtime_ns, status.st_mode))
    return tuple(entries)


def write_records(
    directory: str, launch: Launch, manifest: Mapping[str, object], files: Mapping[str, FileEntry] | None = None
) -> None:
    """
    Write record and manifest atomically, even across a power cut.

    Args:
        directory: The snapshot's directory.
        launch: The record, but for its files.
        manifest: The manifest.
        files: The files of the snapshot; None reads them all.
    """
    files = files_of(directory) if files is None else files
    _write(directory, LAUNCH, launch_record.encode(launch._replace(files=files)))
    text = json.dumps({name: manifest[name] for name in manifest if name != "sum"}, indent=1, ensure_ascii=True)
    _write(directory, MANIFEST, sums.sealed(text.encode("ascii")))


def _write(directory: str, name: str, data: bytes) -> None:
    temporary = os.path.join(directory, f".{name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, os.path.join(directory, name))


def python_identity() -> dict[str, object]:
    """Return what the manifest says of the running Python."""
    return {
        "version": ".".join(map(str, sys.version_info[:3])),
        "implementation": sys.implementation.name,
        "executable": sys.executable,
        "prefix": sys.prefix,
    }
