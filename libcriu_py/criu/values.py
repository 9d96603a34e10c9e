"""
Enumerations and tuples for options, and results of operations.

The numbers come from criu.h, through the compiler.
"""

from __future__ import annotations

from enum import Enum, IntEnum, IntFlag
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.linux.ffi import lib

if TYPE_CHECKING:
    import os

    Directory = str | os.PathLike[str] | int


class LogLevel(IntEnum):
    """How much criu writes to its log."""

    UNSET = lib.CRIU_LOG_UNSET
    MSG = lib.CRIU_LOG_MSG
    ERROR = lib.CRIU_LOG_ERROR
    WARN = lib.CRIU_LOG_WARN
    INFO = lib.CRIU_LOG_INFO
    DEBUG = lib.CRIU_LOG_DEBUG


class CgroupMode(IntEnum):
    """How criu handles cgroups; see `--manage-cgroups` in criu(8)."""

    IGNORE = lib.CRIU_CG_MODE_IGNORE
    NONE = lib.CRIU_CG_MODE_NONE
    PROPS = lib.CRIU_CG_MODE_PROPS
    SOFT = lib.CRIU_CG_MODE_SOFT
    FULL = lib.CRIU_CG_MODE_FULL
    STRICT = lib.CRIU_CG_MODE_STRICT
    DEFAULT = lib.CRIU_CG_MODE_DEFAULT


class NetworkLock(IntEnum):
    """How criu blocks the network while it dumps or restores TCP connections."""

    IPTABLES = lib.CRIU_NETWORK_LOCK_IPTABLES
    NFTABLES = lib.CRIU_NETWORK_LOCK_NFTABLES
    SKIP = lib.CRIU_NETWORK_LOCK_SKIP


class PreDumpMode(IntEnum):
    """How a pre-dump reads memory: by splicing from the process, or with process_vm_readv."""

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
    """Whether the caller of a dump was dumped, or is a restored copy."""

    DUMPED = "dumped"
    RESTORED = "restored"


class InheritFd(NamedTuple):
    """
    A descriptor that replaces a resource in the images.

    Attributes:
        fd: The descriptor; it need not be inheritable.
        key: The resource: a path without its leading slash, `pipe:[inode]`, `socket:[inode]`, `tty[rdev:dev]`, ...
    """

    fd: int
    key: str


class ExtMount(NamedTuple):
    """An external bind mount: mount point and name in a dump, name and source in a restore."""

    key: str
    value: str


class VethPair(NamedTuple):
    """The names of a veth pair inside and outside the restored network namespace."""

    inside: str
    outside: str


class CgroupRoot(NamedTuple):
    """Where to restore the cgroups of a controller, or of all controllers for None."""

    controller: str | None
    path: str


class JoinNamespace(NamedTuple):
    """
    A namespace that a restore joins instead of creating.

    Attributes:
        namespace: "net", "uts", "ipc", "mnt", "user", "pid" or "time".
        file: The pid of a process in it, or the path of a namespace file.
        extra: For "user", the "uid,gid" to take on.
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
    """What CRIU, the kernel and the architecture together can do; None if libcriu or criu does not report it."""

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
        final: Whether to dump, not pre-dump again.
    """

    images_dir: Directory
    parent_images: str
    final: bool
