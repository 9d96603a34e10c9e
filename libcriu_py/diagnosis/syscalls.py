"""
Whether the system calls that criu cannot do without are let through by seccomp filters.

Each is tried in a child with arguments that the kernel itself refuses in a known way, so that nothing
happens: any other answer is that of a filter, and so is a death by SIGSYS.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal

_NUMBERS: dict[str, dict[str, int]] = {
    # arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h
    "x86_64": {
        "ptrace": 101,
        "kcmp": 312,
        "process_vm_readv": 310,
        "clone3": 435,
        "unshare": 272,
        "mount": 165,
        "prctl": 157,
        "pidfd_open": 434,
    },
    "aarch64": {
        "ptrace": 117,
        "kcmp": 272,
        "process_vm_readv": 270,
        "clone3": 435,
        "unshare": 97,
        "mount": 40,
        "prctl": 167,
        "pidfd_open": 434,
    },
}
_NOBODY = 0x7FFFFFFF
"""A pid that no process has: pid_max is at most 4194304."""

# Arguments that change nothing, and the answer of the kernel itself.
_PROBES: dict[str, tuple[tuple[int, ...], int]] = {
    "ptrace": ((16, _NOBODY, 0, 0), errno.ESRCH),  # PTRACE_ATTACH
    "kcmp": ((_NOBODY, _NOBODY, 0, 0, 0), errno.ESRCH),
    "process_vm_readv": ((_NOBODY, 0, 0, 0, 0, 0), 0),
    "clone3": ((0, 0), errno.EINVAL),
    "unshare": ((0,), 0),
    "mount": ((0, 0, 0, 0, 0), errno.EFAULT),
    "prctl": ((35, 0, 0, 0, 0), errno.EINVAL),  # PR_SET_MM
    "pidfd_open": ((_NOBODY, 0), errno.ESRCH),
}
# Without privilege the kernel says so before it looks at the arguments.
_ALSO_THE_KERNEL = {"mount": errno.EPERM, "prctl": errno.EPERM, "process_vm_readv": errno.ESRCH}


def probe() -> dict[str, str]:
    """
    Try each system call.

    Returns:
        By name: "ok", or how it is refused: an errno's name or "SIGSYS". Empty on an architecture
        whose numbers are not known here.
    """
    numbers = _NUMBERS.get(platform.machine(), {})
    return {name: _try(number, *_PROBES[name], _ALSO_THE_KERNEL.get(name)) for name, number in numbers.items()}


def _try(number: int, arguments: tuple[int, ...], expected: int, also: int | None) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    values = [ctypes.c_long(argument) for argument in arguments]
    pid = os.fork()
    if pid == 0:
        result = libc.syscall(ctypes.c_long(number), *values)
        os._exit(0 if result >= 0 else ctypes.get_errno() & 0xFF)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status in {expected, also}:
        return "ok"
    if status < 0:
        return signal.Signals(-status).name
    return errno.errorcode.get(status, "answered otherwise than the kernel does")
