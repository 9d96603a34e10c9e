"""Signals for whoever takes part in a dump or a restore."""

from __future__ import annotations

import random
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.faults import program, space, targets, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.faults.place import Place, Ran
    from tests.faults.targets import Call
    from tests.faults.verdict import Judgement

KILL, STOP, TERM = signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM
TRACED = ["strace", "-D", "-qq", "-y", "-f", "--detach-on=execve", "-o"]
_SPANS = {
    "criu": {
        "dump": {"first": 0.9, "supervisor": 0.7, "program": 0.7, "criu": 0.06, "watch": 0.06},
        "restore": {"first": 0.03, "supervisor": 0.025, "program": 0.01, "criu": 0.02},
    },
    "native": {
        "dump": {"first": 0.9, "program": 0.7, "publisher": 0.15},
        "restore": {"first": 0.015},
    },
}
"""Seconds for which a target is there, more or less: a random time is taken of them."""
_WAITS = {"openat", "read", "write", "splice", "pread64", "vmsplice", "newfstatat", "close", "recvmsg", "sendmsg"}
"""Where files, devices or other processes can keep criu."""
_ORPHANED = "orphaned-"
"""In the names of logs of launchers whose supervisors are killed."""
_SHARES = (0.4, 0.7, 1.0)
"""Of the supervisor's calls, where that happens."""
_LABELS = {"dump": {"first": "command", "watch": "criu's watcher"}, "restore": {"first": "launcher"}}
_NATIVE_STEPS = ["memory.img", "plan", "launch", "manifest.json"]
_STEPS = [
    "images",
    "slots",
    "images/dump.log",
    "images/seccomp.img",
    "images/core-*.img",
    "images/mm-*.img",
    "images/pagemap-*.img",
    "images/pages-1.img",
    "images/fdinfo-*.img",
    "images/files.img",
    "images/fs-*.img",
    "images/ids-*.img",
    "images/pstree.img",
    "images/tty-info.img",
    "images/timens-*.img",
    "images/inventory.img",
    "images/stats-dump",
    "dump.log",
    "memory.img",
    "launch",
]
"""What appears one after another while a snapshot is made."""


class Fault(NamedTuple):
    """A signal for one target at one moment, for which there is either a random number or a step of 0 to 1."""

    phase: str
    target: str
    number: signal.Signals
    random: float | None
    step: float
    engine: str

    @property
    def row(self) -> str:
        """Return the name of the row in the report."""
        done = {KILL: "killed", STOP: "stopped", TERM: "terminated"}[self.number]
        label = _LABELS[self.phase].get(self.target, self.target)
        return f"{label} {done} in a {self.phase}"


def cases(
    count: int, seed: int, base: Path, *, engine: str, signals: Sequence[signal.Signals] = (KILL, STOP, TERM)
) -> Iterator[tuple[str, Callable[[Place], Judgement]]]:
    """
    Yield all cases, each with its row.

    Args:
        count: How many random and how many exact times there are for each target.
        seed: Of the random times.
        base: The shared directory.
        engine: What dumps and restores.
        signals: What is sent.
    """
    numbers = random.Random(seed)
    for phase, spans in _SPANS[engine].items():
        for target in spans:
            for number in signals:
                for place in range(count if number is KILL else (count + 1) // 2):
                    at = place / max(1, count - 1)
                    for moment in (numbers.random(), None):
                        fault = Fault(phase, target, number, moment, at, engine)
                        run = _dump if phase == "dump" else _restore
                        yield fault.row, partial(run, fault, place, base)


def stuck(count: int, base: Path) -> Iterator[tuple[str, Callable[[Place], Judgement]]]:
    """
    Yield cases in which criu does not come back from a system call of a dump.

    Args:
        count: How many there are.
        base: The shared directory.
    """
    log = (base / "dump-criu.log").read_text(encoding="utf-8", errors="replace")
    waits = [call for call in targets.calls(log) if call.name in _WAITS]
    for call in targets.spread(waits, count):
        yield "criu stuck in a dump", partial(_stuck, call)


def _stuck(call: Call, place: Place) -> Judgement:
    delay = f"-e trace={call.name} -e inject={call.name}:delay_enter=1000s:when={call.nth}"
    (place.directory / "inject").write_text(delay, encoding="ascii")
    snap = place.directory / "snap"
    ran = place.run(program.snapshot_command(place, snap, program="continuing.py"))
    (place.directory / "inject").unlink()
    return program.of_snapshot(place, ran, snap, goes_on=True)


def record(place: Place, *, engine: str) -> Judgement:
    """Write down which system calls the targets make, in a place without a fault."""
    (place.directory / "inject").write_text("-s 100", encoding="ascii")
    snap = place.directory / "snap"
    start = program.start_command(place.base / "snap")
    logs = {}
    for phase, command in (("dump", program.snapshot_command(place, snap)), ("restore", start)):
        logs[f"{phase}-first"] = _traced(place, command)
        if engine == "criu":
            logs[f"{phase}-criu"] = (place.directory / "criu.log").read_text(encoding="utf-8", errors="replace")
    (place.directory / "inject").unlink()
    if engine == "criu":
        supervisor = targets.calls(logs["restore-first"], "lcp-supervisor")
        for share in _SHARES:
            call = supervisor[round(share * (len(supervisor) - 1))]
            place.run([*TRACED, place.directory / "log", *call.injection(KILL), "-e", "trace=all", *start])
            logs[f"{_ORPHANED}{share}"] = (place.directory / "log").read_text(encoding="utf-8", errors="replace")
        for name in space.COMMANDS:
            logs[f"write-{name}"] = _traced(place, space.command(name, place.directory, place))
    for name, log in logs.items():
        (place.base / f"{name}.log").write_text(log, encoding="utf-8")
    return verdict.Judgement(verdict.Verdict.RIGHT)


def _traced(place: Place, command: list[object]) -> str:
    log = place.directory / "log"
    ran = place.run([*TRACED, log, *command])
    if ran.status or ran.hung:
        message = f"{command} under strace: {ran}"
        raise RuntimeError(message)
    return log.read_text(encoding="utf-8", errors="replace")


def _call(base: Path, fault: Fault) -> Call | None:
    """Return the system call at which a fault is caused; None where the target is not traced."""
    name = "first" if fault.target == "supervisor" and fault.phase == "restore" else fault.target
    log = base / f"{fault.phase}-{name}.log"
    if fault.random is not None or not log.exists():
        return None
    named = "lcp-supervisor" if fault.target == "supervisor" else ""
    found = targets.calls(log.read_text(encoding="utf-8"), named)
    if named and fault.phase == "restore":  # what a launcher does, too, when its supervisor has ended, would hit both
        logs = [(base / f"{_ORPHANED}{share}.log").read_text(encoding="utf-8") for share in _SHARES]
        both = {call for log in logs for call in targets.counted(log)}
        found = [call for call in found if call not in both]
    return found[round(fault.step * (len(found) - 1))]


def _cause(place: Place, fault: Fault, command: list[object], step: Callable[[int], bool]) -> Ran:
    """Run a command with a fault."""
    span = _SPANS[fault.engine][fault.phase][fault.target]
    call = _call(place.base, fault)
    # A stop of a helper that strace traces is told to strace, and not to its parent.
    apart = fault.step if (fault.target, fault.number) == ("supervisor", STOP) else None
    moment = apart if fault.random is None else fault.random
    if moment is not None:
        return place.run(command, during=targets.after(fault.target, moment * span, fault.number))
    if call is None:
        return place.run(command, during=targets.at_step(fault.target, fault.number, step))
    options = call.injection(fault.number)
    resumed = None
    if fault.number is STOP and fault.target == "first":
        resumed = partial(_resume_later)
    if fault.target == "criu":
        (place.directory / "inject").write_text(" ".join(options), encoding="ascii")
        ran = place.run(command)
        (place.directory / "inject").unlink()
        return ran
    return place.run([*TRACED, "/dev/null", *options, *command], during=resumed)


def _resume_later(process: object) -> None:
    """Continue what was started until it has ended: nobody tells when it has stopped."""
    import contextlib
    import os
    import subprocess
    import time

    assert isinstance(process, subprocess.Popen)
    for _ in range(10):
        if process.poll() is not None:
            return
        time.sleep(0.5)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)


def _mode(fault: Fault, variant: int) -> str:
    """Return in which privilege mode a case is: half of them in each, as far as there is a choice."""
    if fault.target == "watch":
        return "root"
    return "rootless" if variant % 2 or (fault.phase, fault.target) == ("dump", "supervisor") else "root"


def _dump(fault: Fault, variant: int, base: Path, place: Place) -> Judgement:
    snap = place.directory / "snap"
    goes_on = fault.target in {"criu", "watch", "publisher"} and variant // 2 % 2 == 1
    name = "continuing.py" if goes_on else "main.py"
    command = program.snapshot_command(place, snap, "--mode", _mode(fault, variant), program=name)
    steps = _STEPS if fault.engine == "criu" else _NATIVE_STEPS
    wanted = steps[round(fault.step * (len(steps) - 1))]
    ran = _cause(place, fault, command, lambda _: any(snap.glob(wanted)))
    return program.of_snapshot(place, ran, snap, goes_on=goes_on)


def _restore(fault: Fault, variant: int, base: Path, place: Place) -> Judgement:
    command = program.start_command(base / "snap", "--mode", _mode(fault, variant))
    mappings = fault.step * int((base / "mappings").read_text(encoding="ascii"))
    ran = _cause(place, fault, command, lambda pid: _count(Path(f"/proc/{pid}/maps")) >= mappings)
    return verdict.of_start(ran, program.expected(base))


def _count(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0
