"""
Modes, and values of several parts, that options are made of; and what operations answer.

Numbers are the compiler's, from criu.h.
"""

from __future__ import annotations

from enum import Enum, IntEnum, IntFlag
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py._ffi import lib

if TYPE_CHECKING:
    import os

    Directory = str | os.PathLike[str] | int

__all__ = [
    "CgroupMode",
    "CgroupRoot",
    "CpuCapability",
    "DumpOutcome",
    "ExtMount",
    "Features",
    "InheritFd",
    "Iteration",
    "JoinNamespace",
    "LogLevel",
    "NetworkLock",
    "PageServer",
    "PreDumpMode",
    "Version",
    "VethPair",
]


class LogLevel(IntEnum):
    """How much criu writes to its log."""

    UNSET = lib.CRIU_LOG_UNSET
    MSG = lib.CRIU_LOG_MSG
    ERROR = lib.CRIU_LOG_ERROR
    WARN = lib.CRIU_LOG_WARN
    INFO = lib.CRIU_LOG_INFO
    DEBUG = lib.CRIU_LOG_DEBUG


class CgroupMode(IntEnum):
    """What criu does about cgroups; see `--manage-cgroups` in criu(8)."""

    IGNORE = lib.CRIU_CG_MODE_IGNORE
    NONE = lib.CRIU_CG_MODE_NONE
    PROPS = lib.CRIU_CG_MODE_PROPS
    SOFT = lib.CRIU_CG_MODE_SOFT
    FULL = lib.CRIU_CG_MODE_FULL
    STRICT = lib.CRIU_CG_MODE_STRICT
    DEFAULT = lib.CRIU_CG_MODE_DEFAULT


class NetworkLock(IntEnum):
    """How criu keeps the network quiet during a dump or restore of TCP connections."""

    IPTABLES = lib.CRIU_NETWORK_LOCK_IPTABLES
    NFTABLES = lib.CRIU_NETWORK_LOCK_NFTABLES
    SKIP = lib.CRIU_NETWORK_LOCK_SKIP


class PreDumpMode(IntEnum):
    """How memory is read in a pre-dump: spliced out of the process, or with process_vm_readv."""

    SPLICE = lib.CRIU_PRE_DUMP_SPLICE
    READ = lib.CRIU_PRE_DUMP_READ


class CpuCapability(IntFlag):
    """Which CPU features must be the same on restore (CPU_CAP_ in criu/include/cpu.h)."""

    NONE = 0
    FPU = 1
    CPU = 2
    INS = 4
    IMAGE = 8
    ALL = 0xFFFFFFFF


class DumpOutcome(Enum):
    """On which side of a dump its caller is."""

    DUMPED = "dumped"
    RESTORED = "restored"


class InheritFd(NamedTuple):
    """
    A descriptor that replaces a resource of the image.

    Attributes:
        fd: The descriptor; it need not be inheritable.
        key: The resource: a path without its leading slash, `pipe:[inode]`, `socket:[inode]`, `tty[rdev:dev]`, ...
    """

    fd: int
    key: str


class ExtMount(NamedTuple):
    """An external bind mount: on dump mount point and name, on restore name and source."""

    key: str
    value: str


class VethPair(NamedTuple):
    """The names of a veth pair inside and outside the restored network namespace."""

    inside: str
    outside: str


class CgroupRoot(NamedTuple):
    """Where the cgroups of one controller, or of all for None, are restored."""

    controller: str | None
    path: str


class JoinNamespace(NamedTuple):
    """
    A namespace that is joined on restore instead of created.

    Attributes:
        namespace: "net", "uts", "ipc", "mnt", "user", "pid" or "time".
        file: The pid of a process in it, or a file that represents it.
        extra: For "user": "uid,gid" to take on.
    """

    namespace: str
    file: str
    extra: str | None = None


class PageServer(NamedTuple):
    """The page server that memory is sent to."""

    address: str
    port: int


class Version(NamedTuple):
    """
    The version of a criu program.

    One built from a git checkout counts as the next minor version (lib/c/criu.h).
    """

    major: int
    minor: int
    sublevel: int = 0

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.sublevel}" if self.sublevel else f"{self.major}.{self.minor}"


class Features(NamedTuple):
    """
    What CRIU, the kernel and the architecture together can do.

    None: this libcriu, or this criu, cannot tell.
    """

    mem_track: bool | None = None
    lazy_pages: bool | None = None
    pidfd_store: bool | None = None
    mem_compression: bool | None = None


class Iteration(NamedTuple):
    """
    Where the next step of `Criu.dump_iters` writes.

    Attributes:
        images_dir: Its directory.
        parent_images: The directory of the step before, relative to `images_dir`.
        final: Dump now, rather than pre-dump once more.
    """

    images_dir: Directory
    parent_images: str
    final: bool
