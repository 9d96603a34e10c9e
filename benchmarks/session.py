"""Measure scenarios with every way to start them that there is, and say what has to be left out."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

from benchmarks import peer_restore, variants
from benchmarks.common import RunError, Sample, measure
from benchmarks.peer_dmtcp import dmtcp
from benchmarks.report import Outcome
from benchmarks.snapshots import Snapshot, Unavailable, environment, take_snapshot
from benchmarks.variants import Variant
from benchmarks.warm import warm_parent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.budget import Budget
    from benchmarks.frame import Frame, Options
    from benchmarks.scenarios import Scenario

WARM_PARENTS: dict[str, Literal["fork", "forkserver"]] = {variants.FORK: "fork", variants.FORKSERVER: "forkserver"}
LAUNCHER_PARTS = {
    variants.BARE: ["-I", "-S", "-c", "print()"],
    "python3 -c pass": ["-c", "print()"],
    "python3, importing what run imports": [
        "-I",  # the installed package, not one in the working directory
        "-c",
        "import libcriu_py.dump.spawn; print()",
    ],
}


class Session:
    """What one invocation measures, and what it has to leave out."""

    def __init__(self, frame: Frame[Options], directory: Path, source: Path | None = None) -> None:
        """
        Begin.

        Args:
            frame: Measures, and says what is left out.
            directory: For the snapshots.
            source: Where pycriu is, if it is not installed.
        """
        self.frame = frame
        self.directory = directory
        self.source = source
        self.skip = frame.skip

    def scenario(self, scenario: Scenario, budget: Budget) -> Outcome:
        """
        Measure one scenario with every variant that there is.

        Args:
            scenario: The program.
            budget: Of the rounds.
        """
        snapshot = self.snapshot(scenario, "auto")
        copied = self.snapshot(scenario, "copy")
        warm = self.snapshot(scenario, "auto", warm=True)
        with ExitStack() as stack:
            ways = [variants.conventional(scenario)]
            if scenario.name == "empty":
                ways += [variants.floor(floor) for floor in variants.FLOORS]
            ways += self.restored(scenario, snapshot, copied, warm) + self.warm(scenario, stack)
            samples = self.rounds(scenario.name, ways, budget)
        return Outcome(scenario.name, samples, snapshot, copied)

    def restored(
        self, scenario: Scenario, snapshot: Snapshot | None, copied: Snapshot | None, warm: Snapshot | None
    ) -> list[Variant]:
        """
        Return the ways to start a program from its snapshots.

        Args:
            scenario: The program.
            snapshot: What users get.
            copied: Another whose memory is read.
            warm: Another of the program when it had been run.
        """
        ways = self.available(lambda: dmtcp(scenario, self.directory / f"{scenario.name}-dmtcp"))
        if snapshot is not None:
            ways += self.available(
                lambda: variants.restored(variants.PYTHON, scenario, snapshot),
                lambda: variants.restored(variants.NATIVE, scenario, snapshot),
                lambda: peer_restore.raw(variants.RAW, scenario, snapshot),
                lambda: peer_restore.pycriu(scenario, snapshot, self.source),
            )
        if warm is not None:
            ways += self.available(lambda: variants.restored(variants.WARM, scenario, warm))
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

    def snapshot(self, scenario: Scenario, memory: str, *, warm: bool = False) -> Snapshot | None:
        """
        Take a snapshot.

        Args:
            scenario: Of its program.
            memory: As for `take_snapshot`.
            warm: As for `take_snapshot`.

        Returns:
            The snapshot, or None when that failed.
        """
        with self.frame.console.status(f"{scenario.name}: snapshot"):
            try:
                kind = "warm" if warm else memory
                return take_snapshot(scenario, self.directory / f"{scenario.name}-{kind}", memory, warm=warm)
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

    def rounds(self, name: str, ways: list[Variant], budget: Budget | None = None) -> dict[str, list[Sample]]:
        """
        Run the variants in turns.

        Args:
            name: What is measured.
            ways: The variants.
            budget: Of the rounds.
        """
        ordered = sorted(ways, key=lambda way: variants.ORDER.index(way.name))
        return self.frame.turns(name, {way.name: way.start for way in ordered}, budget=budget)

    def launcher(self) -> dict[str, list[Sample]]:
        """Measure the parts of the launcher that are Python's own start."""

        def way(name: str, args: list[str]) -> Variant:
            argv = [sys.executable, *args]
            env = environment()
            return Variant(name, lambda: measure(argv, env=env))

        ways = [way(name, args) for name, args in LAUNCHER_PARTS.items()]
        return self.frame.turns("launcher", {way.name: way.start for way in ways})
