"""Thousands of operations one after another, and counts of what there is before and after (`make soak`)."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py import PIPE, RestorePool, StandbyPool, restore
from tests.faults import program, report
from tests.faults.place import Place, Started, processes
from tests.faults.verdict import Judgement, Verdict

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).resolve().parents[2]
MODES = ("root", "rootless")
_GRACE = 10.0
"""Seconds in which processes may end by themselves before they are counted."""


class Counts(NamedTuple):
    """What there is at one moment."""

    processes: int
    descriptors: int
    files: int
    shm: int
    mounts: int


class Soak:
    """
    The operations, on snapshots of one directory.

    Each is given the mode, and raises AssertionError if something is not as it should be.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._expected = ""

    def prepare(self) -> None:
        """Make the programs, and a snapshot in each mode."""
        program.write(self._place.base)
        ran = self._place.run([sys.executable, self._place.base / "main.py", *program.ARGUMENTS])
        self._expected = ran.out
        for mode in MODES:
            self.snapshot(mode)

    def _snapshot(self, mode: str) -> Path:
        return self._place.directory / mode

    def _command(self, *words: object) -> str:
        ran = self._place.run([*program.OURS, *words])
        assert ran.status == 0, ran
        return ran.out

    def _check(self, process: subprocess.Popen[str]) -> None:
        out, _ = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, self._expected), (process.returncode, out)

    def snapshot(self, mode: str) -> None:
        """Replace a snapshot."""
        memory = random.choice(("auto", "map", "copy"))
        main = self._place.base / "main.py"
        self._command("snapshot", "--mode", mode, "--memory", memory, "--replace", "-o", self._snapshot(mode), main)

    def run(self, mode: str) -> None:
        """Start a copy by the launcher."""
        ran = self._place.run(program.start_command(self._snapshot(mode), "--no-fallback", "--mode", mode))
        assert (ran.status, ran.out) == (0, self._expected), ran

    def restore(self, mode: str) -> None:
        """Start a copy from Python, and read its output."""
        with restore(self._snapshot(mode), program.ARGUMENTS, stdout=PIPE, mode=mode, encoding="utf-8") as process:
            self._check(process)

    def pool(self, mode: str) -> None:
        """Take copies of a pool whose copies have their arguments."""

        async def take() -> list[bytes]:
            async with RestorePool(self._snapshot(mode), program.ARGUMENTS, mode=mode) as pool:
                copies = [await pool.take() for _ in range(2)]
                return [(await copy.communicate())[0] for copy in copies]

        assert {out.decode() for out in asyncio.run(take())} == {self._expected}

    def standby(self, mode: str) -> None:
        """Take a copy that waits."""
        with StandbyPool(self._snapshot(mode), size=1, mode=mode) as pool:
            pool.wait_ready()
            for _ in range(2):
                self.run(mode)

    def optimize(self, mode: str) -> None:
        """Make a snapshot whose memory is copied, and have it mapped."""
        main, snap = self._place.base / "main.py", self._snapshot(mode)
        self._command("snapshot", "--mode", mode, "--memory", "copy", "--replace", "-o", snap, main)
        self._command("optimize", "--memory", "map", snap)

    def store(self, mode: str) -> None:
        """Put the memory of a snapshot into a store, and remove from that what no snapshot uses any more."""
        main, store = self._place.base / "main.py", self._place.directory / "store"
        snap = self._snapshot(mode)
        self._command("snapshot", "--mode", mode, "--memory", "map", "--replace", "--store", store, "-o", snap, main)
        self.run(mode)
        self._command("store", "prune", store)

    def verify(self, mode: str) -> None:
        """Read all of a snapshot."""
        self._command("verify", self._snapshot(mode))

    def inspect(self, mode: str) -> None:
        """Describe a snapshot."""
        assert mode in self._command("inspect", "--json", self._snapshot(mode))

    def counts(self) -> Counts:
        """Count what there is, once no process is about to end, with the same kind of snapshot in each mode."""
        for mode in MODES:
            self.store(mode)
        deadline = time.monotonic() + _GRACE
        least = self._count()
        while time.monotonic() < deadline:
            now = self._count()
            if now == least and time.monotonic() > deadline - _GRACE + 2:
                break
            least = Counts(*map(min, least, now))
            time.sleep(0.1)
        return least

    def _count(self) -> Counts:
        return Counts(
            len(processes()),
            len(os.listdir("/proc/self/fd")),
            sum(1 for path in self._place.directory.rglob("*") if "images" not in path.parts) + len(os.listdir("/tmp")),
            sum(1 for _ in Path("/dev/shm").rglob("*")),
            len(Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()),
        )


WEIGHTS = {
    "snapshot": 4,
    "run": 36,
    "restore": 30,
    "pool": 5,
    "standby": 4,
    "optimize": 3,
    "store": 2,
    "verify": 8,
    "inspect": 8,
}
"""How often each operation is done, of a hundred."""


def _soak(count: int, seed: int, place: Place) -> Judgement:
    """Do each operation once in each mode, count, do very many, count again."""
    random.seed(seed)
    soak = Soak(place)
    soak.prepare()
    operations: dict[str, Callable[[str], None]] = {name: getattr(soak, name) for name in WEIGHTS}
    for operation in operations.values():
        for mode in MODES:
            operation(mode)
    before = soak.counts()
    done: Counter[str] = Counter()
    for name in random.choices([*WEIGHTS], [*WEIGHTS.values()], k=count):
        operations[name](random.choice(MODES))
        done[name] += 1
        if done.total() % 100 == 0:
            print(f"{done.total()} operations, {soak.counts()}", flush=True)
    after = soak.counts()
    lines = [f"| {name} | {had} | {has} |" for name, had, has in zip(Counts._fields, before, after, strict=True)]
    did = ", ".join(f"{number} {name}" for name, number in done.most_common())
    table = "\n".join(["| | before | after |", "|---|---:|---:|", *lines, "", f"{done.total()} operations: {did}.", ""])
    return Judgement(Verdict.RIGHT if after == before else Verdict.LEAK, table)


def main(argv: Sequence[str]) -> int:
    """Run the command, and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--operations", type=int, default=2000, help="how many there are")
    parser.add_argument("--seed", type=int, default=1, help="of their order")
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        parser.error("a namespace of its own needs root")
    os.environ["PYTHONPATH"] = str(ROOT)
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-", dir=ROOT / "build") as base:
        started = Started(Path(base), lambda place: _soak(options.operations, options.seed, place), deadline=1200.0)
        judgement = started.wait()
    print(judgement.detail)
    if judgement.verdict is Verdict.RIGHT and options.operations >= 2000:
        report.write(ROOT / "docs" / "reliability.md", "soak", judgement.detail)
    return 0 if judgement.verdict is Verdict.RIGHT else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
