"""
The options of CRIU's operations, as frozen dataclasses.

`None` leaves CRIU's default. Names are libcriu's, plural for lists. A mapping with the same names works wherever
options do, and saves a program that must start fast the import of this module.

Options without a setter in libcriu go into `config`: a mapping of long options of `criu(8)` without the leading dashes,
passed in a configuration file that criu reads at its start (`CRIU_CONFIG_FILE`). `timeout` is passed that way too,
because `criu_set_timeout` has no effect (lib/c/criu.c never sets has_timeout).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from libcriu_py.criu.values import (
    CgroupMode,
    CgroupRoot,
    CpuCapability,
    DumpOutcome,
    ExtMount,
    Features,
    InheritFd,
    Iteration,
    JoinNamespace,
    LogLevel,
    NetworkLock,
    PageServer,
    PreDumpMode,
    Version,
    VethPair,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from libcriu_py.criu.values import Directory

    Text = str | os.PathLike[str]
    ConfigValue = str | int | bool | Sequence[str] | None

__all__ = [
    "CgroupMode",
    "CgroupRoot",
    "CpuCapability",
    "DumpOptions",
    "DumpOutcome",
    "ExtMount",
    "Features",
    "InheritFd",
    "Iteration",
    "JoinNamespace",
    "LogLevel",
    "NetworkLock",
    "Options",
    "PageServer",
    "PreDumpMode",
    "PreDumpOptions",
    "RestoreOptions",
    "Version",
    "VethPair",
]


@dataclass(frozen=True, kw_only=True)
class Options:
    """
    The options that all operations have in common.

    Attributes:
        images_dir: The directory of the images, a path or an open descriptor. In a self-dump this descriptor is open in
            the dumped process, and so part of the images.
        work_dir: The directory for logs and statistics (`images_dir`); needed to restore from a read-only directory.
        log_file: The name of the log, without slashes ("criu.log").
        log_level: How much is logged (2, warnings).
        unprivileged: Work with CAP_CHECKPOINT_RESTORE alone.
        config_file: A configuration file whose options go over these (CRIU 4.2).
        config: Long options of criu(8), without dashes, that libcriu cannot set.
        timeout: Seconds after which a freeze that does not succeed is given up (10).
        root: The root of the mount namespace.
        external: Resources that the images do not contain, see `--external` in criu(8).
        ext_mounts: External bind mounts.
        auto_ext_mnt: Detect external bind mounts.
        ext_sharing: Allow bind mounts that are shared with the outside.
        ext_masters: Allow bind mounts with a master outside.
        enable_fs: File system types to be handled with their default handler.
        skip_mounts: Mount points to leave out.
        evasive_devices: Use another path to a device when the one in use is gone.
        link_remap: Allow files without a name, by linking them.
        force_irmap: Resolve inotify watches by scanning.
        irmap_scan_paths: Where to scan for them.
        ghost_limit: The largest deleted file that is put into the image, in bytes (1 MiB).
        file_locks: Handle file locks.
        shell_job: Allow a terminal and a session that are shared with the outside.
        orphan_pts_master: Allow the master side of a pty without its slave.
        ext_unix_sk: Allow unix sockets whose peer is outside.
        unix_sockets: The inodes of those sockets (deprecated by CRIU, use `external`).
        tcp_established: Handle established TCP connections.
        tcp_skip_in_flight: Leave out connections that are being made.
        tcp_close: Restore connections as closed.
        network_lock: How the network is kept quiet.
        weak_sysctls: Do not fail where a sysctl cannot be restored.
        manage_cgroups: Handle cgroups (kept for old versions; use the mode).
        manage_cgroups_mode: What to do about cgroups.
        cgroup_roots: Where cgroups are restored.
        cgroup_props: Properties of cgroup controllers, YAML text.
        cgroup_props_file: A file of such text.
        cgroup_controllers: Controllers to be dumped although they are not known.
        cgroup_yard: A directory where controllers are mounted already.
        freeze_cgroup: A freezer cgroup to stop the process tree with.
        cpu_cap: Which CPU features must agree.
        auto_dedup: Punch holes into parent images for pages that were dumped again.
        page_server: Where pages are sent to or come from.
        empty_ns: CLONE_ flags of namespaces that are restored empty.
        lsm_profile: The security profile to restore with, "type:name".
        lsm_mount_context: The SELinux context of mounts.
        veth_pairs: Names of veth pairs (deprecated by CRIU, use `external`).
        display_stats: Print statistics (CRIU 4.3).
        log_to_stderr: Log to stderr (CRIU 4.3).
        stream: Use criu-image-streamer (CRIU 4.3).
        lazy_pages: Leave pages to be fetched on demand (CRIU 4.3).
        image_io_mode: How image files are read and written (CRIU 4.3).
        plugin_options: Options of plugins (CRIU 4.3).
        tls: Encrypt the connection to the page server (CRIU 4.3).
        tls_cacert: The certificate authority (CRIU 4.3).
        tls_cacrl: Its revocation list (CRIU 4.3).
        tls_cert: The certificate (CRIU 4.3).
        tls_key: The private key (CRIU 4.3).
        tls_no_cn_verify: Do not compare the name in the certificate (CRIU 4.3).
    """

    images_dir: Directory | None = None
    work_dir: Directory | None = None
    log_file: str | None = None
    log_level: int | None = None
    unprivileged: bool | None = None
    config_file: Text | None = None
    config: Mapping[str, ConfigValue] | None = None
    timeout: int | None = None
    root: Text | None = None
    external: Sequence[str] | None = None
    ext_mounts: Sequence[ExtMount] | None = None
    auto_ext_mnt: bool | None = None
    ext_sharing: bool | None = None
    ext_masters: bool | None = None
    enable_fs: Sequence[str] | None = None
    skip_mounts: Sequence[Text] | None = None
    evasive_devices: bool | None = None
    link_remap: bool | None = None
    force_irmap: bool | None = None
    irmap_scan_paths: Sequence[Text] | None = None
    ghost_limit: int | None = None
    file_locks: bool | None = None
    shell_job: bool | None = None
    orphan_pts_master: bool | None = None
    ext_unix_sk: bool | None = None
    unix_sockets: Sequence[int] | None = None
    tcp_established: bool | None = None
    tcp_skip_in_flight: bool | None = None
    tcp_close: bool | None = None
    network_lock: NetworkLock | None = None
    weak_sysctls: bool | None = None
    manage_cgroups: bool | None = None
    manage_cgroups_mode: CgroupMode | None = None
    cgroup_roots: Sequence[CgroupRoot] | None = None
    cgroup_props: str | None = None
    cgroup_props_file: Text | None = None
    cgroup_controllers: Sequence[str] | None = None
    cgroup_yard: Text | None = None
    freeze_cgroup: Text | None = None
    cpu_cap: int | None = None
    auto_dedup: bool | None = None
    page_server: PageServer | None = None
    empty_ns: int | None = None
    lsm_profile: str | None = None
    lsm_mount_context: str | None = None
    veth_pairs: Sequence[VethPair] | None = None
    display_stats: bool | None = None
    log_to_stderr: bool | None = None
    stream: bool | None = None
    lazy_pages: bool | None = None
    image_io_mode: int | None = None
    plugin_options: Sequence[str] | None = None
    tls: bool | None = None
    tls_cacert: Text | None = None
    tls_cacrl: Text | None = None
    tls_cert: Text | None = None
    tls_key: Text | None = None
    tls_no_cn_verify: bool | None = None

    def to_native(self) -> dict[str, object]:
        """Return the options that are set, by name."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if value is not None}


@dataclass(frozen=True, kw_only=True)
class PreDumpOptions(Options):
    """
    Options of a pre-dump, which writes memory and keeps the process running.

    Attributes:
        pid: The root of the process tree.
        parent_images: The images this one builds on, relative to `images_dir`.
        track_mem: Watch which pages change, for the next dump.
        pre_dump_mode: How memory is read.
        pidfd_store_sk: A socket that keeps pidfds between pre-dumps, to detect reused pids.
        compress: Compress pages (CRIU 4.3).
    """

    pid: int | None = None
    parent_images: Text | None = None
    track_mem: bool | None = None
    pre_dump_mode: PreDumpMode | None = None
    pidfd_store_sk: int | None = None
    compress: bool | None = None


@dataclass(frozen=True, kw_only=True)
class DumpOptions(PreDumpOptions):
    """
    Options of a dump.  Without `pid` the calling process dumps itself.

    Attributes:
        leave_running: Keep the process running after the dump.
        leave_stopped: Leave the process stopped (CRIU 4.3).
    """

    leave_running: bool | None = None
    leave_stopped: bool | None = None


@dataclass(frozen=True, kw_only=True)
class RestoreOptions(Options):
    """
    Options of a restore.

    Attributes:
        inherit_fds: Descriptors that replace resources of the image.
        join_ns: Namespaces to join.
        mntns_compat_mode: Use the mount engine from before CRIU 3.17.
        skip_file_rwx_check: Do not compare the modes of files (CRIU 3.18).
        exec_cmd: A command that criu executes after the restore.
        decompress_threads: How many threads decompress pages (CRIU 4.3).
    """

    inherit_fds: Sequence[InheritFd] | None = None
    join_ns: Sequence[JoinNamespace] | None = None
    mntns_compat_mode: bool | None = None
    skip_file_rwx_check: bool | None = None
    exec_cmd: Sequence[str] | None = None
    decompress_threads: int | None = None
