"""The areas of a process's memory and their flags, from /proc/PID/smaps (proc_pid_smaps(5), fs/proc/task_mmu.c)."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.native.facts import NotEligible
from libcriu_py.native.plan import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
_ORDINARY = frozenset({"rd", "wr", "ex", "sh", "mr", "mw", "me", "ms", "gd", "lo", "ac", "nr", "sd", "gu"})
"""Flags that protection, sharing and the like follow from; "ac", "sd" and "gu" are the kernel's bookkeeping."""
ADVICE = {"rr": 1, "sr": 2, "dc": 10, "mg": 12, "hg": 14, "nh": 15, "dd": 16, "wf": 18}
"""The number of the MADV_* that sets a flag."""
_REFUSED = {
    "ht": "has huge pages of hugetlbfs",
    "io": "maps memory of a device",
    "pf": "maps memory of a device",
    "mm": "maps memory of a device",
    "de": "has memory of a kernel object, such as of io_uring or asynchronous I/O",
    "um": "has memory that userfaultfd(2) watches",
    "uw": "has memory that userfaultfd(2) watches",
    "ui": "has memory that userfaultfd(2) watches",
    "ss": "has a shadow stack",
    "sl": "has sealed memory",
    "lf": "has memory that is locked on fault",
    "sf": "has a mapping with MAP_SYNC",
}
_DROPPABLE = frozenset({"dp"})
"""Memory of the vdso's getrandom: what else the kernel sets for it says that copies begin with zeros."""
_PROTECTIONS = {
    b"%c%c%c" % (r, w, x): (r == 114) | (w == 119) << 1 | (x == 120) << 2 for r in b"r-" for w in b"w-" for x in b"x-"
}
_OF_KERNEL = (b"[vvar]", b"[vvar_vclock]", b"[vdso]")
_GUARDED = re.compile(b"[%s]+" % re.escape(bytes(top for top in range(256) if top & 0x04)))
"""By the upper byte of an entry of the pagemap."""
_DELETED = b" (deleted)"


class Region(NamedTuple):
    """An area of memory."""

    start: int
    end: int
    protection: int
    """PROT_* bits."""
    is_shared: bool
    offset: int
    """In its file."""
    device: tuple[int, int]
    inode: int
    """0 without a file."""
    path: bytes
    """The file's path, a name in brackets, or empty."""
    flags: frozenset[str]
    has_key: bool
    """Whether it has a protection key."""

    @property
    def is_nameless(self) -> bool:
        """Return whether it is shared memory that nobody could find by a name."""
        return self.is_shared and self.path.endswith(_DELETED)

    @property
    def is_memfd(self) -> bool:
        """Return whether it is of a memfd, or shared memory without a file."""
        return self.path.startswith(b"/memfd:")

    @property
    def is_of_snapshot(self) -> bool:
        """Return whether it is mapped from an earlier snapshot, of which a later one needs nothing."""
        return not self.is_shared and self.inode != 0 and self.path.removesuffix(_DELETED).endswith(b"/memory.img")

    @property
    def is_wiped(self) -> bool:
        """Return whether a fork leaves zeros in the child."""
        return "wf" in self.flags

    @property
    def advice(self) -> int:
        """Return the advice in effect, as a bit for each MADV_* number."""
        return sum([1 << ADVICE[flag] for flag in self.flags if flag in ADVICE])


class Mapped(NamedTuple):
    """What a process has mapped, by address."""

    regions: Sequence[Region]
    special: Sequence[Region]
    """The kernel's own: [vvar] to [vdso]."""


def parse(smaps: bytes) -> Mapped:
    """
    Read what a process has mapped.

    Args:
        smaps: The content of /proc/PID/smaps.
    """
    found: list[Region] = []
    special: list[Region] = []
    head, *parts = smaps.split(b"\nVmFlags:")
    for part in parts:
        flags, _, following = part.partition(b"\n")
        region = _region(head, frozenset(flags.decode("ascii").split()))
        head = following
        if region.path in _OF_KERNEL:
            special.append(region)
        elif region.path != b"[vsyscall]":
            found.append(region)
    return Mapped(found, special)


def _region(text: bytes, flags: frozenset[str]) -> Region:
    line, _, rest = text.partition(b"\n")
    addresses, permissions, offset, device, inode, *path = line.split(None, 5)
    start, _, end = addresses.partition(b"-")
    major, _, minor = device.partition(b":")
    key = rest.find(b"ProtectionKey:")
    return Region(
        *(int(start, 16), int(end, 16), _PROTECTIONS[permissions[:3]], permissions[3:] == b"s", int(offset, 16)),
        *((int(major, 16), int(minor, 16)), int(inode), _path(path[0]) if path else b"", flags),
        has_key=key >= 0 and rest[key:].split(None, 2)[1] != b"0",
    )


def _path(text: bytes) -> bytes:
    """Return a path as it is: the kernel writes a line's end in it as an octal number (seq_path)."""
    return text.replace(b"\\012", b"\n")


def guards(pid: int, regions: Iterable[Region]) -> list[tuple[int, int]]:
    """
    Return where nobody may touch memory (MADV_GUARD_INSTALL), as below the stacks of threads since glibc 2.42.

    Args:
        pid: The process.
        regions: Its areas.
    """
    found = []
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        for region in regions:
            if region.inode or not region.protection:
                continue
            entries = os.pread(pagemap.fileno(), (region.end - region.start) // PAGE * 8, region.start // PAGE * 8)
            runs = _GUARDED.finditer(entries[7::8])
            found += [(region.start + run.start() * PAGE, region.start + run.end() * PAGE) for run in runs]
    return found


def refuse_unknown(regions: Iterable[Region], stopped_at: range) -> None:
    """
    Refuse areas of kinds that a plan cannot have.

    Args:
        regions: The areas.
        stopped_at: Addresses of the dump's own memory, which does not matter.

    Raises:
        NotEligible: There is one.
    """
    for region in regions:
        if region.start in stopped_at:
            continue
        where = f" (at {region.start:x})"
        refused = region.flags & _REFUSED.keys()
        if refused:
            raise NotEligible(_REFUSED[min(refused)] + where)
        unknown = region.flags - _ORDINARY - ADVICE.keys() - _DROPPABLE
        if unknown:
            raise NotEligible(f"has memory of an unknown kind: {' '.join(sorted(unknown))}{where}")
        if region.has_key:
            raise NotEligible("has memory with a protection key" + where)
        _refuse_file(region, where)


def _refuse_file(region: Region, where: str) -> None:
    name = os.fsdecode(region.path)
    if not region.inode:
        if region.path and region.path not in {b"[heap]", b"[stack]"} and not region.path.startswith(b"[anon"):
            raise NotEligible(f"has memory of an unknown kind: {name}{where}")
        if region.is_shared:
            raise NotEligible(f"has shared memory of an unknown kind: {name}{where}")
    elif not region.path.startswith(b"/"):
        raise NotEligible(f"maps {name}")
    elif region.path.endswith(_DELETED) and not (region.is_shared or region.is_of_snapshot or region.is_memfd):
        raise NotEligible(f"maps {name.removesuffix(' (deleted)')}, which was deleted or replaced")
