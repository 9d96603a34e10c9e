"""
The snapshot directory, its launch record and its manifest.

    snap/launch          what a restore needs to know, for the launcher (`launch_record`)
    snap/manifest.json   what people want to know besides; written last, when all else is there
    snap/images/         what criu wrote
    snap/memory.img      memory that copies map instead of having it copied; not always there
    snap/memory/         parts of that which are in a store; not always there
    snap/working-set     which pages of that are copied at once; not always there
    snap/slots/          placeholders for stdin, stdout, stderr and the request
    snap/dump.log        criu's log

The images hold the whole memory of the program, and restoring is executing: the directory is 0700,
and one that its caller does not own, or that others can write, is refused.
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
    A snapshot on disk, as `Snapshot.open` found it.

    Thread safety: it never changes, and may be shared.
    """

    def __init__(self, path: str, launch: Launch, manifest: Mapping[str, Any]) -> None:
        """Take a path, what is in its launch record, and the content of its manifest; `open` reads both."""
        self.path = path
        self.launch = launch
        self.manifest = manifest

    def __repr__(self) -> str:
        """Name the path."""
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
            SnapshotError: There is none, it is of another format, or it is damaged.
            SnapshotUnsafe: Somebody else could have written it.
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
        """Where criu's images are."""
        return os.path.join(self.path, IMAGES)

    @property
    def program(self) -> Program | None:
        """The main program, where the snapshot was prepared for one; None when it checkpointed itself."""
        return self.launch.program

    @property
    def command(self) -> list[str]:
        """The conventional command line up to the program's arguments."""
        return list(self.launch.command)

    @property
    def pids(self) -> list[int]:
        """The process and thread ids in the image."""
        return list(self.launch.pids)

    @property
    def details(self) -> Mapping[str, Any]:
        """What the maker of the snapshot noted."""
        details: Mapping[str, Any] = self.manifest.get("details") or {}
        return details

    @property
    def memory_key(self) -> str | None:
        """The name of `memory.img` in the images, where memory is mapped from it; None where all is copied."""
        return self.launch.memory_files[0].key if self.launch.memory_files else None

    @property
    def memory_files(self) -> list[MemoryFile]:
        """The files from which memory is mapped: `memory.img`, and those that are in a store."""
        return list(self.launch.memory_files)

    @property
    def files(self) -> dict[str, FileEntry]:
        """Size and digest of every file, but record and manifest."""
        digests = self.manifest["sha256"]
        return {name: FileEntry(size, digests.get(name, "")) for name, size in self.launch.files.items()}

    def check(self) -> list[Mismatch]:
        """
        Compare this machine with the one of the dump, without starting anything.

        Returns:
            What differs; empty when a restore is sound.
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
    Refuse a snapshot with files that are not those of its manifest, before it is made into another.

    Raises:
        SnapshotError: There is such a file.
    """
    damaged = snapshot.verify()
    if damaged:
        message = f"{snapshot.path} is damaged: {damaged[0].text}; make the snapshot anew"
        raise SnapshotError(message)


def refuse_unsafe(path: str, status: os.stat_result | None = None) -> None:
    """Raise SnapshotUnsafe for a file or directory, of that status, that another ordinary user could have written."""
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
    """Open a directory, in which all files stay of one snapshot also where another one takes its place."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _read(directory: int, path: str) -> bytes:
    """Read a file of an open directory that nobody else could have written."""
    # A FIFO in its place must not make us wait.
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
    Read the recorded command line of a snapshot that was refused, unless it is not ours.

    A command that somebody else may have written is not to be executed either.

    Args:
        path: The snapshot's directory.

    Returns:
        The command; None where it cannot be known.
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
    """What is known of a file of a snapshot."""

    size: int
    sha256: str


def file_entry(path: str) -> FileEntry:
    """Return size and digest of a file."""
    return FileEntry(os.stat(path).st_size, sha256(path))


def files_of(directory: str) -> dict[str, FileEntry]:
    """Return size and digest of every file below a snapshot directory, but record and manifest, by relative name."""
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
        One entry a file, in order of their paths.
    """
    paths = {mapped.path for pid in pids for mapped in mapped_ranges(pid) if mapped.path.startswith("/")}
    entries: list[ComparedFile] = []
    for path in sorted(paths):
        if path.endswith(" (deleted)") or path.startswith(tuple(without)):
            continue
        try:
            status = os.stat(path)
        except OSError:
            continue  # a device, or of another namespace: criu is to say what it thinks of it
        entries.append(ComparedFile(path, status.st_size, status.st_mtime_ns, status.st_mode))
    return tuple(entries)


def write_records(
    directory: str, launch: Launch, manifest: Mapping[str, object], files: Mapping[str, FileEntry] | None = None
) -> None:
    """
    Write record and manifest such that they are there completely or not at all, also after a power cut.

    Args:
        directory: The snapshot's directory.
        launch: What the record is to say, but the files.
        manifest: What the manifest is to say, but the digests.
        files: Those of the snapshot; None has them all read.
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
    """Describe the Python that is running."""
    return {
        "version": ".".join(map(str, sys.version_info[:3])),
        "implementation": sys.implementation.name,
        "executable": sys.executable,
        "prefix": sys.prefix,
    }
