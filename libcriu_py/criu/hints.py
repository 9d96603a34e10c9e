"""
What CRIU's errors mean, and what to do about them.

Each entry pairs a pattern for an error line with a hint, which the groups of the pattern fill. The first error with a
hint decides: criu prints the cause first and its consequences after it.
"""

from __future__ import annotations

import errno
import re

from libcriu_py.criu.find import INSTALL

_PID_TAKEN = (
    "the pid of the dumped process is in use here; wait until that process is gone, or restore in a pid namespace"
)
_NO_PROCESS = "there is no such process, or it ended during the dump"
_NO_CAPABILITY = "criu lacks a capability; run it as root, or give it CAP_CHECKPOINT_RESTORE and set unprivileged"

_HINTS: tuple[tuple[str, str], ...] = (
    # Processes.
    (
        r"Can't fork for (\d+): File exists|Pid (\d+) do not match expected|Unable to create a thread: .*File exists",
        _PID_TAKEN,
    ),
    (
        r"session leader of \d+\(\d+\) is outside",
        "the session of the process began outside of its pid namespace; start it with: setsid --wait COMMAND",
    ),
    (
        r"(?:session leader|Consider using --shell-job)",
        "the process shares its session with its parent; start it with setsid, or set shell_job",
    ),
    (
        (
            r"tty: Found slave peer|ctty inheritance|dangling tty|tty: No task found with sid|Unable to find a tty"
            r"|tty .*(?:isn't|not) .*inherit"
        ),
        "the process uses a terminal of the outside; redirect its standard streams, or set shell_job",
    ),
    (
        r"(?:ptrace|seize|interrupt|attach).*(?:traced|Operation not permitted)|is already traced|SEIZE .*failed",
        "criu may not trace the process: a debugger or strace holds it, or Yama (kernel.yama.ptrace_scope) forbids it",
    ),
    (
        r"zombie (\d+) .*found while seizing|Zombie",
        "the process tree contains a dead process that nobody has waited for",
    ),
    (
        r"Unable to detach from \d+: No such process|Unable to open /proc/\d+|Process \d+ not found",
        _NO_PROCESS,
    ),
    (
        r"Unable to detach \d+: No such process",
        "a thread or process ended before criu had let go of all that it restored; restore once more",
    ),
    (r"criu itself is within dumped tree", "criu is a descendant of the process; dump from outside of its tree"),
    (
        r"send_fds failed \(-22\)|io_uring",
        (
            "a descriptor of the process cannot be passed on, as those of io_uring; "
            "close its io_uring before the dump (UV_USE_IO_URING=0 for uvloop up to 0.21, another event loop for later)"
        ),
    ),
    (
        r"pidfd pid \d+ is not a part of process tree",
        "the process holds a pidfd of a process outside of its tree; close it before the dump",
    ),
    (
        r"Unable to freeze|Timeout reached|timeout",
        "the process tree did not stop in time; raise timeout, or look for a process stuck in the kernel (state D)",
    ),
    (
        r"freezer\.state|Can't (?:open|freeze).*freezer",
        "freeze_cgroup does not name a freezer cgroup",
    ),
    # Files.
    (
        r"File (\S+) has bad size (\d+) \(expect (\d+)\)",
        (
            "/{0} changed its size since the dump ({2} bytes then, {1} now); put the file of then back, "
            "or close it before the dump (a log that grows does this)"
        ),
    ),
    (
        r"File (\S+) has bad mode",
        "/{0} changed its mode since the dump; change it back, or set skip_file_rwx_check",
    ),
    (
        r"Can't open (?:file|fake fifo \S+) \[?(\S+?)\]?(?: on restore)?: No such file or directory",
        "/{0} was open, mapped or the working directory at the dump and is gone; put it back",
    ),
    (
        r"Can't open (?:file|fake fifo \S+) \[?(\S+?)\]?(?: on restore)?: Permission denied",
        "/{0} was open at the dump and may not be opened here",
    ),
    (r"Can't open cwd|Can't chdir", "the working directory of the dumped process is gone; create it again"),
    (
        r"Can't open mapped \[.*/sem\..* \(deleted\)\]",
        (
            "criu may not read a POSIX semaphore without CAP_CHECKPOINT_RESTORE outside of a user namespace; "
            "make locks, queues and pools of multiprocessing after the checkpoint, or dump as root or with a "
            "file-capable criu"
        ),
    ),
    (
        r"Can't open mapped \[(.*) \(deleted\)\]",
        (
            "{0} is deleted but mapped, which criu may not read without CAP_CHECKPOINT_RESTORE outside of a user "
            "namespace; map it after the checkpoint, or dump as root or with a file-capable criu"
        ),
    ),
    (
        r"Can't dump ghost file (\S+) of (\d+) size",
        "{0} is deleted but open, and larger than ghost_limit; raise that to {1} or more, or close the file",
    ),
    (
        r"link remap for (\S+?)\.? ",
        "{0} is open under a name that was deleted, and has others; set link_remap",
    ),
    (r"[Ff]ile locks are hold", "the process holds file locks; release them, or set file_locks for dump and restore"),
    (
        r"Can't lookup mount=\d+ for fd=-?\d+ path=(\S+)",
        (
            "{0} is open or mapped and on a mount that the mount namespace of the process does not have "
            "(inherited from outside, or memfd_secret); close it before the dump, or open it inside"
        ),
    ),
    (
        r"inotify|irmap|fsnotify|[Cc]an't find .* watch",
        "the process watches a file that has no path any more; close its inotify, or set force_irmap",
    ),
    (
        r"Can't dump file (\d+) of that type \[\d+\] \(anon (\S+?)\)",
        "descriptor {0} of the process is a {1}, which CRIU cannot dump; close it before the dump",
    ),
    (
        r"Can't dump file (\d+) of that type \[\d+\] \(chr (\S+?)\)",
        "descriptor {0} of the process is the device {1}, which CRIU cannot dump (a GPU needs a plugin); close it",
    ),
    (r"SysVIPC shmem", "System V shared memory can only be dumped with its IPC namespace; detach it before the dump"),
    # Sockets.
    (
        r"External socket is used|Unix socket \d+ with(?:out| unreachable) peer|sk unreachable",
        (
            "the process has a unix socket whose other end is outside (a log daemon, a service); "
            "close it before the dump, or set ext_unix_sk"
        ),
    ),
    (
        r"Connected TCP socket",
        "the process has an established TCP connection; close it, set tcp_close, or tcp_established with CAP_NET_ADMIN",
    ),
    (r"In-flight|in-flight", "a TCP connection is being made; set tcp_skip_in_flight"),
    (r"MPTCP|Unsupported proto 262", "the process uses multipath TCP, which CRIU cannot dump"),
    (
        r"Unknown socket collected \(family (\d+)\)|Unsupported (?:proto|socket|sk)",
        "the process has a socket of a kind that CRIU cannot dump; close it before the dump",
    ),
    (
        r"built without libnftables",
        "this criu is a lean one: set network_lock to IPTABLES or SKIP, or build another: scripts/install-criu --full",
    ),
    (
        r"Locking network failed|iptables-restore|nft",
        "criu could not stop the network of the process; install iptables, or set network_lock to SKIP",
    ),
    (r"page server|Page server|Can't connect to server", "the page server cannot be reached"),
    # Namespaces and privileges.
    (
        r"nested (\w+) namespace",
        "a {0} namespace was made by unshare and the process is not in it; start the process in it",
    ),
    (
        r"Unable to convert uid or gid|doesn't belong to the target user namespace",
        "the process is in a user namespace that does not own all it uses; start criu and the process in the same one",
    ),
    (
        r"setgroups",
        "the supplementary groups here are not those at the dump; restore as the same user in the same groups",
    ),
    (
        r"bounding|PR_CAPBSET|Can't drop|cap_bset|restore cap",
        (
            "the capabilities of the dumped process were reduced, which cannot be repeated here without CAP_SETPCAP; "
            "dump it with no_new_privs set, or give criu CAP_SETPCAP"
        ),
    ),
    (
        r"CAP_(\w+)|Can't set(?:uid|gid|resuid|resgid)|(?:needs|requires?|missing).* capabilit|not .*permitted to use",
        _NO_CAPABILITY,
    ),
    (
        r"ns_last_pid|Can't set pid|clone3.*Operation not permitted",
        "criu may not choose pids; it needs CAP_CHECKPOINT_RESTORE",
    ),
    (
        r"LSM specified|lsm|apparmor|selinux",
        "the security profile cannot be used on this kernel; leave lsm_profile out",
    ),
    (r"join-ns file (\S+):|join_ns", "the namespace to join does not exist"),
    (r"cgroup|cpuset", "cgroups could not be handled; set manage_cgroups_mode to IGNORE"),
    # Images and directories.
    (
        r"Can't create log file (\S+): (.*)|Can't initiate log",
        "criu cannot write its log in this directory; name another one in work_dir",
    ),
    (
        r"No subdirs are allowed in log_file",
        "log_file must be a name without slashes; use work_dir for another directory",
    ),
    (
        r"Invalid parent image directory|parent image",
        "the directory of parent_images does not exist; it is relative to images_dir",
    ),
    (r"inherit fd (\d+): Bad file descriptor", "descriptor {0} of inherit_fds is not open"),
    (r"No space(?: left|$)", "the disk is full: make room, or name another directory"),
    (r"Read-only file system", "criu cannot write there; name another directory in work_dir"),
    (
        (
            r"empty-image|Can't open (?:image|pstree|inventory|core|mm|pagemap)|magic|pb-read|[Ii]mage.*corrupt"
            r"|Read \d+ bytes while"
            r"|Unexpected EOF|was truncated|Can't read|pages.*missing"
        ),
        "an image file is missing or damaged; take the dump again",
    ),
    (
        r"Not supported images version|Too old image|Images corrupted or too old criu",
        "the image was written by another version of CRIU",
    ),
    # Kernel and machine.
    (
        r"Tracking memory is not available|BUG at criu/mem\.c",
        "this kernel does not track memory changes (CONFIG_MEM_SOFT_DIRTY): no pre-dumps, and no track_mem",
    ),
    (
        r"[Cc][Pp][Uu].*(?:mismatch|not (?:match|support)|capabilit|incompat)|cpu(?:info)?: ",
        "this CPU lacks features that the dumped process may use; restore on a like machine",
    ),
    (
        r"vdso|vDSO|rseq|Can't get \d+:\d+ opt: Operation not supported",
        f"this criu is too old for this kernel; install a newer one with {INSTALL}",
    ),
    (r"seccomp", "the process runs under a seccomp filter that criu cannot suspend; it needs CAP_SYS_ADMIN"),
    (r"userfaultfd|uffd|UFFD", "userfaultfd is not allowed here (vm.unprivileged_userfaultfd)"),
    (
        r"Operation not permitted|Permission denied",
        "criu was not allowed to do this; run it with the privileges the error names",
    ),
)

_BY_ERRNO = {
    errno.EEXIST: _PID_TAKEN,
    errno.ESRCH: _NO_PROCESS,
    errno.EPERM: _NO_CAPABILITY,
    errno.EBADRQC: "criu does not accept an option or a directory; its standard error says which",
}


def find_hint(errors: list[str], errno_: int = 0) -> str | None:
    """
    Return the hint for a refusal; None if the reason is unknown.

    Args:
        errors: The errors of criu's log, without noise, in order.
        errno_: The errno that criu reported; 0 for none.
    """
    for line in errors:
        text = re.sub(r"^\S+\.c:\d+: ", "", line)
        for pattern, words in _HINTS:
            match = re.search(pattern, text)
            if match:
                return words.format(*(group or "" for group in match.groups()))
    return _BY_ERRNO.get(errno_)
