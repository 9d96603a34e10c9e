"""
Standard streams that descendants of a dumped process share with it, and the process's own duplicates of them.

While the process is dumped, slots take the place of its stdio. The descriptors of its descendants cannot be changed
from outside, and duplicates made by `os.dup` are as hard to find as to replace in the program. So their images are
changed: in `fdinfo-*.img`, a descriptor that was the same open file as the stdio becomes one on the slot's file, which
a restore replaces by the launcher's stream.

In a mount namespace, criu finds no mount for a file that was opened outside it, such as one that output was redirected
to. A dump declares such a file *external*, and criu saves only its name.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.images import framing
from libcriu_py.linux import processes
from libcriu_py.linux.mounts import known_mounts, mount_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from libcriu_py.images.codec import Message

_ID, _TYPE, _FD = 1, 3, 4  # of fdinfo_entry, images/fdinfo.proto
_FILE_TYPE, _FILE_ID = 1, 2  # of file_entry, there
_FILES_ID = 2  # of task_kobj_ids_entry, images/core.proto
_PIPE, _TTY = 2, 11  # of fd_types, images/fdinfo.proto


class Shared(NamedTuple):
    """A descriptor, of this process or a descendant, that is the same open file as this process's 0, 1 or 2."""

    pid: int
    fd: int
    stream: int


def find(pids: Sequence[int]) -> list[Shared]:
    """Find the descriptors of processes, this one or descendants, that share its standard streams."""
    streams = [fd for fd in range(3) if processes.same_file(os.getpid(), fd, fd)]
    return [shared for pid in pids for shared in _find(pid, streams)]


def _find(pid: int, streams: Sequence[int]) -> Iterator[Shared]:
    try:
        numbers = [int(name) for name in os.listdir(f"/proc/{pid}/fd")]
    except (FileNotFoundError, PermissionError):
        return  # it has ended, or belongs to another user
    for fd in numbers:
        if pid == os.getpid() and fd < 3:
            continue
        # If stdout and stderr are the same file, each stays itself.
        for stream in sorted(streams, key=lambda stream: stream != fd):
            if processes.same_file(pid, fd, stream):
                yield Shared(pid, fd, stream)
                break


def outside(shared: Sequence[Shared]) -> list[str]:
    """
    Return shared files for which criu finds no mount.

    Args:
        shared: What `find` found.

    Returns:
        Keys for the option `external` of a dump, as `dump_one_reg_file` (criu/files-reg.c) makes them.
    """
    mounts = known_mounts()
    return sorted({key for item in shared if (key := _external_key(item, mounts)) is not None})


def _external_key(item: Shared, mounts: Collection[int]) -> str | None:
    try:
        status, mount = os.stat(f"/proc/{item.pid}/fd/{item.fd}"), mount_of(item.fd, item.pid)
    except FileNotFoundError:
        return None  # it has ended
    # Unnamed pipes have no mount either; declaring them external does no harm.
    if mount in mounts or not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
        return None
    return f"file[{mount:x}:{status.st_ino:x}]"


def redirect(images: str, leader: int, shared: Sequence[Shared]) -> None:
    """
    Redirect restored descendants and duplicates to the standard streams of the restored process.

    Args:
        images: The directory of the images to change.
        leader: The dumped process, which had slots at 0 to 2.
        shared: What `find` returned before it had slots.
    """
    slots = {entry.number(_FD): entry for entry in _read_fds(images, leader)}
    for pid in {item.pid for item in shared}:
        wanted = {item.fd: slots[item.stream] for item in shared if item.pid == pid}
        entries = _read_fds(images, pid)
        for entry in entries:
            slot = wanted.get(entry.number(_FD))
            if slot is not None:
                entry.set(_ID, slot.number(_ID))
                entry.set(_TYPE, slot.number(_TYPE))
        _write(_fds_path(images, pid), "fdinfo", entries)
    _forget_unused(images)


def _forget_unused(images: str) -> None:
    """Remove pipes and terminals that nobody has open any more: criu expects each to have a user (`file_master`)."""
    used: set[int] = set()
    for name in os.listdir(images):
        if name.startswith("fdinfo-"):
            entries = framing.read(os.path.join(images, name), "fdinfo")
            used.update(entry.number(_ID) for entry in entries)
    path = os.path.join(images, "files.img")
    files = framing.read(path, "files")
    kept = [file for file in files if file.number(_FILE_TYPE) not in {_PIPE, _TTY} or file.number(_FILE_ID) in used]
    if len(kept) != len(files):
        _write(path, "files", kept)


def _fds_path(images: str, pid: int) -> str:
    (ids,) = framing.read(os.path.join(images, f"ids-{pid}.img"), "ids")
    return os.path.join(images, f"fdinfo-{ids.number(_FILES_ID)}.img")


def _read_fds(images: str, pid: int) -> list[Message]:
    return framing.read(_fds_path(images, pid), "fdinfo")


def _write(path: str, kind: str, messages: list[Message]) -> None:
    framing.write(f"{path}.new", kind, messages)
    os.rename(f"{path}.new", path)
