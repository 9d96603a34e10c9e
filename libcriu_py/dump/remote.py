"""
Permission to checkpoint a process that never asked for it, by `sys.remote_exec` of Python 3.14 and newer.

The interpreter of the process runs a script of ours in its main thread, between two bytecodes; that has it listen for
one request (`libcriu_py.dump.trigger`). Whatever keeps it from that is refused here, by name.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from typing import TYPE_CHECKING, NoReturn

from libcriu_py.dump import trigger
from libcriu_py.errors import CheckpointError
from libcriu_py.linux.files import read_small
from libcriu_py.linux.runtime_dir import private_directory

if TYPE_CHECKING:
    from typing import Any

FIRST = (3, 14)
"""The first Python with `sys.remote_exec`."""
PATIENCE = 10.0
"""Seconds in which the main thread must run bytecode."""
_INTERPRETER = re.compile(r"/(?:lib)?python3\.(\d+)[^/]*$")
_YAMA = "/proc/sys/kernel/yama/ptrace_scope"

# The requester may have given up when this runs; then nobody listens, and it does nothing.
_SCRIPT = """\
def allow():
    import json, os, socket, sys
    os.unlink({script!r})
    os.rmdir(os.path.dirname({script!r}))
    with socket.socket(socket.AF_UNIX) as answering:
        try:
            answering.connect({address!r})
        except OSError:
            return
        try:
            from libcriu_py.dump.trigger import Permission
            Permission(None, {{"then": "continue"}}, once=True)
            answer = {{}}
        except BaseException as error:
            answer = {{"error": f"{{type(error).__name__}}: {{error}}", "python": sys.executable}}
            answer["missing"] = getattr(error, "name", None) == "libcriu_py"
        answering.sendall(json.dumps(answer).encode())
allow()
"""


def permit(pid: int, wait: float = PATIENCE) -> None:
    """
    Have a process of this user listen for one request for a checkpoint, after which it goes on.

    Args:
        pid: The process.
        wait: Seconds in which its main thread must run bytecode.

    Raises:
        CheckpointError: That is not possible; the message names the missing condition, and what to do about it.
        ProcessLookupError: There is no such process.
    """
    pidfd = os.pidfd_open(pid)
    try:
        _refuse(pid)
        answers = trigger.listen(trigger.ANSWER)
        with answers:
            # One that never runs is swept as what killed restores leave.
            script = os.path.join(tempfile.mkdtemp(prefix="work-trigger-", dir=private_directory()), "allow.py")
            with open(script, "x", encoding="ascii") as file:
                file.write(_SCRIPT.format(script=script, address=answers.getsockname()))
            _execute(pid, script)
            answer = _answer(answers, pidfd, pid, wait)
    finally:
        os.close(pidfd)
    if "error" in answer:
        advice = f"; install it there: {answer['python']} -m pip install libcriu-py" if answer["missing"] else ""
        _fail(pid, f"cannot load libcriu_py ({answer['error']}){advice}")


def _answer(answers: Any, pidfd: int, pid: int, wait: float) -> dict[str, Any]:
    """Return what the script says."""
    try:
        answer = trigger.wait_for(answers, pidfd, pid, wait)
    except CheckpointError:
        _fail(
            pid,
            f"has run no bytecode in its main thread for {wait:g} s: it waits in a system call or in C code; try again "
            "when it is at work, or have it call libcriu_py.allow_checkpoint()",
        )
    if answer is None:
        _fail(pid, "has ended")
    return answer


def _refuse(pid: int) -> None:
    """Refuse a process that would not or could not run the script."""
    needs = "else it must call libcriu_py.allow_checkpoint()"
    if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
        _fail(pid, "belongs to another user; run this as that user")
    try:
        program = os.readlink(f"/proc/{pid}/exe")
        spaces = [os.readlink(f"/proc/{process}/ns/mnt") for process in (pid, "self")]
    except PermissionError:
        _fail(pid, "may not be looked at by this user; run this as root")
    minor = _minor_version(pid, program)
    ours = sys.version_info[:2]
    if minor is None:
        _fail(pid, f"runs {program}, which is no Python that is known by its name")
    if (3, minor) < FIRST:
        _fail(pid, f"runs Python 3.{minor}, which takes no scripts from outside (3.14 does), {needs}")
    if (3, minor) != ours:
        mine = ".".join(map(str, ours))
        _fail(
            pid, f"runs Python 3.{minor}, and this command {mine}: use the libcriu-py of its own environment, {needs}"
        )
    if len({*spaces}) != 1:
        _fail(pid, f"is in another mount namespace, perhaps a container; run this command in there, {needs}")


def _minor_version(pid: int, program: str) -> int | None:
    """Return the minor version of the Python that a process runs, by the names of the files that it has mapped."""
    maps = read_small(f"/proc/{pid}/maps") or b""
    mapped = [os.fsdecode(line.split(maxsplit=5)[5]) for line in maps.splitlines() if b"python3." in line]
    for path in (program, *mapped):
        found = _INTERPRETER.search(path.removesuffix(" (deleted)"))
        if found:
            return int(found[1])
    return None


def _execute(pid: int, script: str) -> None:
    """Have a process run a script."""
    try:
        if sys.version_info >= (3, 14):  # or _refuse has refused
            sys.remote_exec(pid, script)
    except BaseException as error:
        os.unlink(script)
        os.rmdir(os.path.dirname(script))
        if isinstance(error, PermissionError):
            _fail(pid, _no_right())
        if isinstance(error, RuntimeError) and "not enabled" in str(error):
            _fail(pid, "was started with PYTHON_DISABLE_REMOTE_DEBUG or -X disable-remote-debug; start it without")
        if isinstance(error, (OSError, RuntimeError)):
            _fail(pid, f"takes no script: {error}")
        raise


def _no_right() -> str:
    """Return that a process may not be traced, and what would allow it."""
    scope = read_small(_YAMA) or b"0"
    yama = f"; kernel.yama.ptrace_scope is {scope.decode()}: sudo sysctl kernel.yama.ptrace_scope=0" * (scope != b"0")
    return f"may not be traced by this command{yama or '; it needs CAP_SYS_PTRACE (in Docker --cap-add SYS_PTRACE)'}"


def _fail(pid: int, problem: str) -> NoReturn:
    message = f"process {pid} {problem}"
    raise CheckpointError(message)
