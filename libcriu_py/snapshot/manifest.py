"""
The snapshot directory, its launch record and its manifest.

    snap/launch          what a restore needs, for the launcher (`snapshot.record`)
    snap/manifest.json   further facts for people; written last
    snap/images/         criu's images
    snap/memory.img      memory that copies map instead of copying it; optional
    snap/memory/         blocks of memory that are in a store; optional
    snap/working-set     pages that copies copy ahead; optional
    snap/slots/          placeholders for stdin, stdout, stderr and the request
    snap/dump.log        criu's log

The images hold all memory of the program, and restoring them executes it. So the directory has mode 0700, and one that
another user owns or can write to is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.errors import SnapshotError, SnapshotUnsafe
from libcriu_py.linux.maps import mapped_ranges
from libcriu_py.snapshot import record as launch_record
from libcriu_py.snapshot.identity import Mismatch, mismatches
from libcriu_py.snapshot.record import ComparedFile, RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from libcriu_py.program.main import Program
    from libcriu_py.snapshot.record import Launch, MemoryFile

LAUNCH = "launch"
MANIFEST = "manifest.json"
IMAGES = "images"
SLOTS_DIRECTORY = "slots"
SLOTS = ("stdin", "stdout", "stderr", "request")
MEMORY = "memory.img"
SHARED_DIRECTORY = "memory"
WORKING_SET = "working-set"
DUMP_LOG = "dump.log"
GROUP_OR_OTHERS_WRITE = 0o022


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
            refuse_unsafe(directory)
            with _opened(directory) as fd:
                launch = launch_record.decode(_read(fd, at))
                at = os.path.join(directory, MANIFEST)
                manifest = json.loads(_read(fd, at))
        except (FileNotFoundError, NotADirectoryError):
            if at.endswith(LAUNCH) and os.path.exists(os.path.join(directory, MANIFEST)):
                message = f"{path} is of a format that older versions of libcriu_py had; make the snapshot anew"
            else:
                message = (
                    f"{path} is no snapshot: it has no {MANIFEST}; make one with: libcriu-py snapshot -o {path} ..."
                )
            raise SnapshotError(message) from None
        except PermissionError as error:
            if isinstance(error, SnapshotUnsafe):
                raise
            message = f"{path} cannot be read by this user: {error.strerror}; a snapshot belongs to who made it"
            raise SnapshotUnsafe(message) from None
        except RecordError as error:
            message = f"{at} {error}; make the snapshot anew"
            raise SnapshotError(message) from None
        except ValueError as error:
            message = f"{at} is damaged ({error}); make the snapshot anew"
            raise SnapshotError(message) from None
        return cls(directory, launch, _checked(manifest, at))

    @property
    def images(self) -> str:
        """The directory of criu's images."""
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
        """Size and digest of every file except record and manifest."""
        digests = self.manifest["sha256"]
        return {name: FileEntry(size, digests.get(name, "")) for name, size in self.launch.files.items()}

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
        """Compare size and SHA-256 digest of each file of the snapshot with the manifest."""
        found = []
        record = os.path.join(self.path, LAUNCH)
        known = {**self.files, LAUNCH: FileEntry(os.stat(record).st_size, self.manifest["sha256"].get(LAUNCH, ""))}
        for name, recorded in known.items():
            path = os.path.join(self.path, name)
            try:
                size, digest = file_entry(path)
            except OSError as error:
                found.append(Mismatch(f"{path} cannot be read: {error.strerror}", fatal=True))
                continue
            if size != recorded.size:
                found.append(Mismatch(f"{path} has {size} bytes instead of {recorded.size}", fatal=True))
            elif digest != recorded.sha256:
                found.append(Mismatch(f"{path} has changed: its SHA-256 digest differs", fatal=True))
        return found


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


def refuse_unsafe(path: str, status: os.stat_result | None = None) -> None:
    """Raise SnapshotUnsafe if another ordinary user could have written a file or directory; `status` saves a stat."""
    status = status or os.stat(path)
    me = os.geteuid()
    if status.st_uid not in {me, 0}:
        message = (
            f"{path} belongs to uid {status.st_uid}, not to uid {me}: restoring it would run that user's code; "
            "make a snapshot of your own"
        )
        raise SnapshotUnsafe(message)
    if status.st_mode & GROUP_OR_OTHERS_WRITE:
        message = f"{path} can be written by others (mode {status.st_mode & 0o7777:04o}); chmod go-w {path}"
        raise SnapshotUnsafe(message)


@contextlib.contextmanager
def _opened(directory: str) -> Iterator[int]:
    """Open a directory, so that all files come from one snapshot even if it is replaced meanwhile."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _read(directory: int, path: str) -> bytes:
    """Read a file of an open directory; raise SnapshotUnsafe if another user could have written it."""
    # Do not block on a FIFO.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    with os.fdopen(os.open(os.path.basename(path), flags, dir_fd=directory), "rb") as file:
        refuse_unsafe(path, os.fstat(file.fileno()))
        return file.read()


def _checked(manifest: object, path: str) -> dict[str, Any]:
    if not isinstance(manifest, dict) or not isinstance(manifest.get("sha256", {}), dict):
        message = f"{path} is not a manifest of libcriu_py; make the snapshot anew"
        raise SnapshotError(message)
    missing = [name for name in ("criu_version", "machine", "python", "sha256") if name not in manifest]
    if missing:
        message = f"{path} lacks {', '.join(missing)}; make the snapshot anew"
        raise SnapshotError(message)
    return manifest


def command_of_damaged(path: str | os.PathLike[str]) -> list[str] | None:
    """
    Return the recorded command line of a snapshot that was refused.

    Args:
        path: The snapshot's directory.

    Returns:
        The command; None if it cannot be read, or another user could have written it.
    """
    directory = os.path.realpath(os.fspath(path))
    try:
        refuse_unsafe(directory)
        with _opened(directory) as fd:
            command = launch_record.command_of_damaged(_read(fd, os.path.join(directory, LAUNCH)))
    except OSError:
        return None
    return None if command is None else list(command)


def sha256(path: str) -> str:
    """Return the SHA-256 digest of a file, in hexadecimal."""
    import hashlib

    digest = hashlib.sha256()
    block = bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(memoryview(block)[:count])
    return digest.hexdigest()


class FileEntry(NamedTuple):
    """Size and digest of a file of a snapshot."""

    size: int
    sha256: str


def file_entry(path: str) -> FileEntry:
    """Return size and digest of a file."""
    return FileEntry(os.stat(path).st_size, sha256(path))


def files_of(directory: str) -> dict[str, FileEntry]:
    """Return size and digest of every file of a snapshot, except record and manifest, by relative path."""
    found: dict[str, FileEntry] = {}
    for base, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(base, name)
            relative = os.path.relpath(path, directory)
            if relative not in {LAUNCH, MANIFEST}:
                found[relative] = file_entry(path)
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
        manifest: The manifest, but for its digests.
        files: The files of the snapshot; None reads them all.
    """
    files = files_of(directory) if files is None else files
    _write(directory, LAUNCH, launch_record.encode(launch._replace(files={name: files[name].size for name in files})))
    digests = {name: entry.sha256 for name, entry in files.items()}
    digests[LAUNCH] = sha256(os.path.join(directory, LAUNCH))
    text = json.dumps({**manifest, "sha256": digests}, indent=1, ensure_ascii=True)
    _write(directory, MANIFEST, f"{text}\n".encode("ascii"))


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
