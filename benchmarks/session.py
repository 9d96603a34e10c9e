"""
Measure scenarios with every way to start them that there is, and say what has to be left out.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

from benchmarks import peer_restore, variants
from benchmarks.common import RunError, Sample, measure, round_robin
from benchmarks.peer_dmtcp import dmtcp
from benchmarks.report import Outcome
from benchmarks.scenarios import LABELS, SCENARIOS, Scenario
from benchmarks.snapshots import Snapshot, Unavailable, environment, take_snapshot
from benchmarks.variants import Variant
from benchmarks.warm import warm_parent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rich.console import Console

WARM_UP = 1  # rounds
WARM_PARENTS: dict[str, Literal["fork", "forkserver"]] = {variants.FORK: "fork", variants.FORKSERVER: "forkserver"}
LAUNCHER_PARTS = {
    variants.BARE: ["-I", "-S", "-c", "print()"],
    "python3 -c pass": ["-c", "print()"],
    "python3, importing what run imports": [
        "-I",  # the installed package, not one in the working directory
        "-c",
        "import libcriu_py.launcher; print()",
    ],
}


class Session:
    """
    What one invocation measures, and what it has to leave out.
    """

    def __init__(self, console: Console, directory: Path, runs: int, pycriu: Path | None) -> None:
        """
        Begin.

        Args:
            console: Where progress is shown.
            directory: For the snapshots.
            runs: Rounds that count.
            pycriu: Where pycriu is, if it is not installed.

        """
        self.console = console
        self.directory = directory
        self.runs = runs
        self.pycriu = pycriu
        self.skipped: list[str] = []

    def skip(self, what: str) -> None:
        """
        Leave something out, and say so here and in the JSON.

        Args:
            what: What is left out and why, in a sentence.

        """
        if what not in self.skipped:
            self.skipped.append(what)
            self.console.print(f"[yellow]skipped:[/yellow] {what}", highlight=False)

    def scenario(self, name: str) -> Outcome | None:
        """
        Measure one scenario with every variant that there is.

        Args:
            name: Its name.

        Returns:
            The measurements, or None when packages are missing.

        """
        scenario = SCENARIOS[name]()
        missing = scenario.missing()
        if missing:
            self.skip(f"{LABELS.get(name, name)}: not installed: {', '.join(missing)} (pip install '.[bench]')")
            return None
        snapshot = self.snapshot(scenario, "auto")
        copied = self.snapshot(scenario, "copy")
        with ExitStack() as stack:
            ways = [variants.conventional(scenario)]
            if name == "empty":
                ways += [variants.floor(floor) for floor in variants.FLOORS]
            ways += self.restored(scenario, snapshot, copied) + self.warm(scenario, stack)
            samples = self.rounds(name, sorted(ways, key=lambda way: variants.ORDER.index(way.name)))
        return Outcome(name, samples, snapshot, copied)

    def restored(self, scenario: Scenario, snapshot: Snapshot | None, copied: Snapshot | None) -> list[Variant]:
        """
        Return the ways to start a program from its snapshots.

        Args:
            scenario: The program.
            snapshot: What users get.
            copied: Another whose memory is read.

        """
        ways = self.available(lambda: dmtcp(scenario, self.directory / f"{scenario.name}-dmtcp"))
        if snapshot is not None:
            ways += self.available(
                lambda: variants.restored(variants.PYTHON, scenario, snapshot),
                lambda: variants.restored(variants.NATIVE, scenario, snapshot),
                lambda: peer_restore.raw(variants.RAW, scenario, snapshot),
                lambda: peer_restore.pycriu(scenario, snapshot, self.pycriu),
            )
        if copied is not None:
            ways += self.available(
                lambda: variants.restored(variants.COPIED, scenario, copied),
                lambda: peer_restore.raw(variants.RAW_COPIED, scenario, copied),
            )
        return ways

    def warm(self, scenario: Scenario, stack: ExitStack) -> list[Variant]:
        """
        Return the ways to start a program from a parent that has imported it.

        Args:
            scenario: The program.
            stack: Ends the parents.

        """
        ways: list[Variant] = []
        for name, kind in WARM_PARENTS.items():
            try:
                parent = stack.enter_context(warm_parent(kind, scenario))
            except RunError as error:
                self.skip(f"{name} of {scenario.name}: {error}")
                continue
            ways.append(Variant(name, parent.start))
        return ways

    def snapshot(self, scenario: Scenario, memory: str) -> Snapshot | None:
        """
        Take a snapshot.

        Args:
            scenario: Of its program.
            memory: As for `take_snapshot`.

        Returns:
            The snapshot, or None when that failed.

        """
        with self.console.status(f"{scenario.name}: snapshot"):
            try:
                return take_snapshot(scenario, self.directory / f"{scenario.name}-{memory}", memory)
            except (RunError, Unavailable) as error:
                self.skip(f"snapshot of {scenario.name}: {error}")
                return None

    def available(self, *makers: Callable[[], Variant]) -> list[Variant]:
        """
        Make variants, and leave out those that are not to be had here.

        Args:
            makers: One for each variant.

        """
        ways = []
        for make in makers:
            try:
                ways.append(make())
            except Unavailable as error:
                self.skip(str(error))
        return ways

    def rounds(self, name: str, ways: list[Variant]) -> dict[str, list[Sample]]:
        """
        Run the variants in turns.

        A variant that fails is left out from then on.

        Args:
            name: What is measured, for the progress line.
            ways: The variants.

        """
        samples: dict[str, list[Sample]] = {way.name: [] for way in ways}
        failed: set[str] = set()
        rounds = WARM_UP + self.runs
        with self.console.status(name) as status:
            for number, way in round_robin(ways, rounds):
                if way.name in failed:
                    continue
                status.update(f"{name}: round {number + 1} of {rounds}, {way.name}")
                try:
                    sample = way.start()
                except RunError as error:
                    failed.add(way.name)
                    self.skip(f"{way.name} of {name}: {error}")
                    continue
                if number >= WARM_UP:
                    samples[way.name].append(sample)
        return {way: runs for way, runs in samples.items() if way not in failed}

    def launcher(self) -> dict[str, list[Sample]]:
        """
        Measure the parts of the launcher that are Python's own start.
        """

        def way(name: str, args: list[str]) -> Variant:
            argv = [sys.executable, *args]
            env = environment()
            return Variant(name, lambda: measure(argv, env=env))

        ways = [way(name, args) for name, args in LAUNCHER_PARTS.items()]
        return self.rounds("launcher", ways)
