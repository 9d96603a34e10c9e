"""
Find out whether seccomp filters allow the system calls that criu needs.

A child tries each with arguments that the kernel itself refuses in a known way, so that nothing happens. Any other
answer, or a death by SIGSYS, comes from a filter.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal

_NUMBERS: dict[str, dict[str, int]] = {
    # arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h
    "ptrace": {"x86_64": 101, "aarch64": 117},
    "kcmp": {"x86_64": 312, "aarch64": 272},
    "process_vm_readv": {"x86_64": 310, "aarch64": 270},
    "clone3": {"x86_64": 435, "aarch64": 435},
    "unshare": {"x86_64": 272, "aarch64": 97},
    "mount": {"x86_64": 165, "aarch64": 40},
    "prctl": {"x86_64": 157, "aarch64": 167},
    "pidfd_open": {"x86_64": 434, "aarch64": 434},
}
_NOBODY = 0x7FFFFFFF
"""A pid that no process has: pid_max is at most 4194304."""

# Arguments that change nothing, and the kernel's own answer.
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
# Without privilege, the kernel gives these answers before it looks at the arguments.
_ALSO_THE_KERNEL = {"mount": errno.EPERM, "prctl": errno.EPERM, "process_vm_readv": errno.ESRCH}


def probe() -> dict[str, str]:
    """
    Try each system call.

    Returns:
        By name: "ok", or how it is refused: an errno's name or "SIGSYS". Empty on other architectures than those above.
    """
    machine = platform.machine()
    return {
        name: _try(numbers[machine], *_PROBES[name], _ALSO_THE_KERNEL.get(name))
        for name, numbers in _NUMBERS.items()
        if machine in numbers
    }


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
    return errno.errorcode.get(status, "a different answer than the kernel's")
