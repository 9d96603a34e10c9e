"""
The snapshot directory and its manifest.

    snap/manifest.json   written last, atomically: without it there is no snapshot
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

import json
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.errors import SnapshotError, SnapshotUnsafe
from libcriu_py.linux.maps import mapped_ranges
from libcriu_py.program import start_variables
from libcriu_py.program.main import Program

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FORMAT = 2
MANIFEST = "manifest.json"
IMAGES = "images"
SLOTS_DIRECTORY = "slots"
SLOTS = ("stdin", "stdout", "stderr", "request")
MEMORY = "memory.img"
SHARED_DIRECTORY = "memory"
WORKING_SET = "working-set"
DUMP_LOG = "dump.log"
GROUP_OR_OTHERS_WRITE = 0o022


class Mismatch(NamedTuple):
    """One thing that is not as it was when the snapshot was made."""

    text: str
    fatal: bool
    """Whether a restore would fail, or not be sound."""


class Snapshot:
    """
    A snapshot on disk, as `Snapshot.open` found it.

    Thread safety: it never changes, and may be shared.
    """

    def __init__(self, path: str, manifest: Mapping[str, Any]) -> None:
        """Take a path and the content of its manifest; `open` reads both."""
        self.path = path
        self.manifest = manifest

    def __repr__(self) -> str:
        """Name the path."""
        return f"<Snapshot {self.path!r}>"

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Snapshot:
        """
        Read a snapshot's manifest.

        Args:
            path: The snapshot's directory.

        Returns:
            The snapshot.

        Raises:
            SnapshotError: There is none, it is of another format, or it is damaged.
            SnapshotUnsafe: Somebody else could have written it.
        """
        directory = os.path.realpath(os.fspath(path))
        manifest_path = os.path.join(directory, MANIFEST)
        try:
            refuse_unsafe(directory)
            refuse_unsafe(manifest_path)
            with open(manifest_path, "rb") as file:
                manifest = json.load(file)
        except (FileNotFoundError, NotADirectoryError):
            message = f"{path} is no snapshot: it has no {MANIFEST}; make one with: libcriu-py snapshot -o {path} ..."
            raise SnapshotError(message) from None
        except PermissionError as error:
            if isinstance(error, SnapshotUnsafe):
                raise
            message = f"{path} cannot be read by this user: {error.strerror}; a snapshot belongs to who made it"
            raise SnapshotUnsafe(message) from None
        except ValueError as error:
            message = f"{manifest_path} is damaged ({error}); make the snapshot anew"
            raise SnapshotError(message) from None
        return cls(directory, _checked(manifest, manifest_path))

    @property
    def images(self) -> str:
        """Where criu's images are."""
        return os.path.join(self.path, IMAGES)

    @property
    def program(self) -> Program | None:
        """The main program, where the snapshot was prepared for one; None when it checkpointed itself."""
        program = self.manifest.get("program")
        return None if program is None else Program(program["kind"], program["value"])

    @property
    def command(self) -> list[str]:
        """The conventional command line up to the program's arguments."""
        return list(self.manifest["command"])

    @property
    def pids(self) -> list[int]:
        """The process and thread ids in the image."""
        return list(self.manifest["pids"])

    @property
    def details(self) -> Mapping[str, Any]:
        """What the maker of the snapshot noted."""
        details: Mapping[str, Any] = self.manifest.get("details") or {}
        return details

    @property
    def memory_key(self) -> str | None:
        """The name of `memory.img` in the images, where memory is mapped from it; None where all is copied."""
        memory = self.manifest.get("memory") or {}
        key: str | None = memory.get("key")
        return key

    @property
    def memory_files(self) -> list[Mapping[str, Any]]:
        """
        The files from which memory is mapped: `memory.img`, and those that are in a store.

        Each has a `file` (its relative path), a `key` (its name in the images) and a `size`.
        """
        if self.memory_key is None:
            return []
        memory = self.manifest["memory"]
        return [memory, *memory.get("shared", ())]

    def check(self) -> list[Mismatch]:
        """
        Compare this machine with the one of the dump, without starting anything.

        Returns:
            What differs; empty when a restore is sound.
        """
        from libcriu_py.snapshot.identity import mismatches

        return mismatches(self)

    def verify(self) -> list[Mismatch]:
        """Compare size and SHA-256 digest of each file of the snapshot with the manifest."""
        found = []
        for name, recorded in self.manifest["files"].items():
            path = os.path.join(self.path, name)
            try:
                size = os.stat(path).st_size
                digest = sha256(path)
            except OSError as error:
                found.append(Mismatch(f"{path} cannot be read: {error.strerror}", fatal=True))
                continue
            if size != recorded["size"]:
                found.append(Mismatch(f"{path} has {size} bytes instead of {recorded['size']}", fatal=True))
            elif digest != recorded["sha256"]:
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


def refuse_unsafe(path: str) -> None:
    """Raise SnapshotUnsafe for a file or directory that another ordinary user could have written."""
    status = os.stat(path)
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


def _checked(manifest: object, path: str) -> dict[str, Any]:
    if not isinstance(manifest, dict) or "format" not in manifest:
        message = f"{path} is not a manifest of libcriu_py; make the snapshot anew"
        raise SnapshotError(message)
    if manifest["format"] != FORMAT:
        message = (
            f"{path} has format {manifest['format']}, this version of libcriu_py reads format {FORMAT}; "
            "make the snapshot anew"
        )
        raise SnapshotError(message)
    needed = ("command", "pids", "files", "slots", "images_key", "machine", "python", "mapped", "criu_version", "uid")
    missing = [name for name in needed if name not in manifest]
    if missing:
        message = f"{path} lacks {', '.join(missing)}; make the snapshot anew"
        raise SnapshotError(message)
    return manifest


def sha256(path: str) -> str:
    """Return the SHA-256 digest of a file, in hexadecimal."""
    import hashlib

    digest = hashlib.sha256()
    block = bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(memoryview(block)[:count])
    return digest.hexdigest()


def file_entry(path: str) -> dict[str, object]:
    """Return size and digest of a file, as the manifest has them."""
    return {"size": os.stat(path).st_size, "sha256": sha256(path)}


def files_of(directory: str) -> dict[str, dict[str, object]]:
    """Return size and digest of every file below a snapshot directory, but the manifest, by relative name."""
    found: dict[str, dict[str, object]] = {}
    for base, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(base, name)
            relative = os.path.relpath(path, directory)
            if relative != MANIFEST:
                found[relative] = file_entry(path)
    return dict(sorted(found.items()))


def mapped_files(pids: Iterable[int], without: Sequence[str] = ()) -> list[dict[str, object]]:
    """
    List the regular files mapped by processes, with size and mtime in nanoseconds.

    Args:
        pids: The processes.
        without: Path prefixes to leave out.

    Returns:
        One entry a file, in order of their paths.
    """
    paths = {mapped.path for pid in pids for mapped in mapped_ranges(pid) if mapped.path.startswith("/")}
    entries: list[dict[str, object]] = []
    for path in sorted(paths):
        if path.endswith(" (deleted)") or path.startswith(tuple(without)):
            continue
        try:
            status = os.stat(path)
        except OSError:
            continue  # a device, or of another namespace: criu is to say what it thinks of it
        entries.append({"path": path, "size": status.st_size, "mtime_ns": status.st_mtime_ns, "mode": status.st_mode})
    return entries


def write_manifest(directory: str, manifest: Mapping[str, object]) -> None:
    """Write the manifest such that it is there completely or not at all, also after a power cut."""
    temporary = os.path.join(directory, f".{MANIFEST}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1, ensure_ascii=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, os.path.join(directory, MANIFEST))


def python_identity() -> dict[str, object]:
    """Describe the Python that is running."""
    return {
        "version": ".".join(map(str, sys.version_info[:3])),
        "implementation": sys.implementation.name,
        "executable": sys.executable,
        "prefix": sys.prefix,
        "variables": start_variables.recorded(os.environ),
    }
