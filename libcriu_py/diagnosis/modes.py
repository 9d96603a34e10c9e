"""Find what blocks a mode: first from the facts, in order of importance, then by a trial."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import libcriu_py
from libcriu_py.criu.find import INSTALL
from libcriu_py.privilege.decision import find_obstacle as find_cheap_obstacle, forget_namespaces
from libcriu_py.privilege.mode import Obstacle, Privilege
from libcriu_py.privilege.obstacles import ROOT, STARTER, YOU, own_command
from libcriu_py.program import interpreter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Facts = Mapping[str, Mapping[str, Any]]

OLDEST_CRIU = (3, 18)
"""The first version with the unprivileged mode."""
NEW_KERNELS, CRIU_OF_NEW_KERNELS = (6, 16), (4, 2)
"""From this Linux on SO_PASSCRED cannot be read from network sockets, which criu did before this version."""
_PATIENCE = 60.0  # seconds for a dump and restore that take less than one
_GRACE = 30.0  # seconds for a trial that timed out to end
_TRIAL = "from libcriu_py.diagnosis.trial import main; sys.exit(main(sys.argv[1], float(sys.argv[2])))"
_NOT_OF_TRIALS = ("LIBCRIU_PY_SNAPSHOT", "LIBCRIU_PY_ENGINE")
_FEW_FILES = 256
_SLOW_START = 0.002
"""Seconds above the start of a small program that are worth a note."""


class Trial(NamedTuple):
    """The result of a dump and restore."""

    obstacle: Obstacle | None
    dump: float | None
    """Seconds to start and dump a tiny process."""
    restore: float | None
    """Seconds from the request to restore it to its end."""


def find_obstacle(mode: Privilege, facts: Facts) -> Obstacle | None:
    """
    Find the first thing that blocks a mode, without dumping anything.

    Args:
        mode: Root, capability or rootless.
        facts: What `facts.gather` returned.

    Returns:
        The obstacle; None if nothing is known to block it.
    """
    for check in (_criu, _kernel, _ptrace, _storage):
        obstacle = check(facts)
        if obstacle is not None:
            return obstacle
    if mode is Privilege.ROOTLESS:
        forget_namespaces()  # so that it is tested again
    return find_cheap_obstacle(mode, facts["criu"]["path"])


def native_obstacle() -> Obstacle | None:
    """Find what blocks the native engine, without dumping anything."""
    from libcriu_py.dump.native_engine import NotEligible, refuse_machine

    try:
        refuse_machine()
    except NotEligible as refusal:
        return Obstacle(f"this process {refusal.reason}", "use criu")
    return None


def _criu(facts: Facts) -> Obstacle | None:
    criu = facts["criu"]
    if criu["path"] is None:
        return Obstacle(criu["problem"].partition(": install it")[0], _install(), YOU)
    if criu["version"] is None:
        return Obstacle(f"{criu['path']} does not run: {criu['problem']}", _install(), YOU)
    if _numbers(criu["version"]) < OLDEST_CRIU:
        return Obstacle(f"{criu['path']} is version {criu['version']}, but 3.18 or newer is required", _install(), YOU)
    return None


def _install(option: str = "") -> str:
    """Return the command that installs criu: in a source tree its script, with an option, elsewhere pip."""
    script = os.path.join(os.path.dirname(os.path.dirname(libcriu_py.__file__)), "scripts", "install-criu")
    return f"{script}{option}" if os.path.exists(script) else INSTALL


def _numbers(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version, whatever follows them."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _kernel(facts: Facts) -> Obstacle | None:
    if facts["proc"]["subset"] == "pid":
        return Obstacle(
            "/proc is mounted with subset=pid, so /proc/sys and everything else but processes is missing",
            "mount -t proc proc /proc",
            STARTER if facts["namespaces"]["container"] else ROOT,
        )
    if not facts["kernel"]["checkpoint_restore"]:
        return Obstacle(
            "this kernel was built without CONFIG_CHECKPOINT_RESTORE",
            "install a distribution's kernel, which has it",
            ROOT if not facts["namespaces"]["container"] else "whoever runs the host",
        )
    return None


def _ptrace(facts: Facts) -> Obstacle | None:
    """Find a Yama that forbids ptrace; lower values are handled where criu is started (`linux.capabilities`)."""
    if facts["security"]["yama"] == "3":
        return Obstacle(
            "Yama forbids ptrace until the next boot (kernel.yama.ptrace_scope is 3)",
            "remove kernel.yama.ptrace_scope=3 from /etc/sysctl.d, then reboot",
            ROOT,
        )
    return None


def _storage(facts: Facts) -> Obstacle | None:
    problem = facts["storage"]["problem"]
    return None if problem is None else Obstacle(problem, f"rm -r {problem.partition(' ')[0]}", ROOT)


def notes(facts: Facts) -> Iterator[Obstacle]:
    """
    Name what matters without blocking a mode.

    Args:
        facts: What `facts.gather` returned.

    Yields:
        Each as an obstacle.
    """
    if not facts["storage"]["cache_on_tmpfs"]:
        yield Obstacle(
            f"{facts['storage']['cache']} is not on a tmpfs, so criu does not cache what it learns about the kernel: "
            "each restore takes 8 to 20 ms longer",
            "mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm",
            STARTER if facts["namespaces"]["container"] else ROOT,
        )
    if facts["process"]["pid"] == 1:
        yield Obstacle(
            "this is pid 1, and a program that is pid 1 cannot dump itself, because it would adopt its criu",
            "docker run --init ... (Kubernetes: shareProcessNamespace: true)",
            STARTER,
        )
    refused = [f"{name} ({answer})" for name, answer in facts["kernel"]["system_calls"].items() if answer != "ok"]
    if refused:
        yield Obstacle(
            f"a seccomp filter refuses {', '.join(refused)}: restores need ptrace and kcmp, and clone3 or a writable "
            "/proc/sys/kernel/ns_last_pid; the rootless mode also needs unshare and mount",
            "docker run --security-opt seccomp=PROFILE ... with a profile that allows them (docs/containers.md)",
            STARTER,
        )
    if facts["process"]["no_new_privs"]:
        yield Obstacle("NO_NEW_PRIVS is set, and programs dumped here have it when they are restored")
    for note in (_old_for_kernel(facts), _slow_start(facts["criu"])):
        if note is not None:
            yield note
    soft = facts["limits"]["nofile"][0]
    if soft is not None and soft < _FEW_FILES:
        yield Obstacle(f"a process may have only {soft} files open at once", "ulimit -n 1024", YOU)


def _old_for_kernel(facts: Facts) -> Obstacle | None:
    """Say what criu cannot dump on this kernel because it is too old for it; None if it is new enough."""
    version, kernel = facts["criu"]["version"], facts["kernel"]["release"]
    if version is None or _numbers(version) >= CRIU_OF_NEW_KERNELS or _numbers(kernel) < NEW_KERNELS:
        return None
    return Obstacle(
        f"{facts['criu']['path']} is version {version}, too old for Linux {kernel}: it cannot dump network sockets",
        _install(),
        YOU,
    )


def _slow_start(criu: Mapping[str, Any]) -> Obstacle | None:
    """Say how much longer criu takes to start than a lean one; None if it is lean."""
    if criu["start"] is None:
        return None
    excess = criu["start"] - criu["least_start"]
    if excess < _SLOW_START:
        return None
    loads = f" with {criu['libraries']} shared libraries" if criu["libraries"] else ""
    return Obstacle(
        f"{criu['path']} takes {criu['start'] * 1000:.1f} ms to start{loads}: each copy would start "
        f"{excess * 1000:.1f} ms sooner with a lean one",
        _install(" --from-source"),
        YOU,
    )


# ---- the trial -------------------------------------------------------------


def try_mode(mode: Privilege | str) -> Trial:
    """
    Dump and restore a tiny process in a mode.

    Args:
        mode: Root, capability or rootless; or "native", by that engine.

    Returns:
        How long it took, or what stopped it.
    """
    # In a separate process, so that the caller's descriptors, threads and signals have no effect.
    name = mode.value if isinstance(mode, Privilege) else mode
    env = {name: value for name, value in os.environ.items() if name not in _NOT_OF_TRIALS}
    try:
        done = subprocess.run(
            interpreter.command(_TRIAL, name, str(_PATIENCE)),
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE + _GRACE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Trial(_failed("it timed out and did not end", name), None, None)
    try:
        told = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
        return Trial(_failed(f"its process ended with status {done.returncode}: {last}", name), None, None)
    if told["error"] is not None:
        return Trial(_failed(told["error"], name), told["dump"], None)
    return Trial(None, told["dump"], told["restore"])


def _failed(reason: str, name: str) -> Obstacle:
    command = f"LIBCRIU_PY_MODE={name} {own_command()} snapshot -o DIR PROGRAM, then read DIR/dump.log"
    if name == "native":
        command = f"{own_command()} snapshot --engine native -o DIR PROGRAM"
    return Obstacle(f"the trial failed: {reason}", command, YOU)
