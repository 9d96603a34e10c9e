"""The ways to spawn copies of a program that ``spawn.py`` compares."""

from __future__ import annotations

import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import RunError
from benchmarks.snapshots import command, environment, take_snapshot
from libcriu_py.copies.restore import restore
from libcriu_py.errors import CriuError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.scenarios import Scenario
    from libcriu_py.copies.process import RestoredProcess

PEERS = Path(__file__).resolve().parent / "peers"


class Spawner(ABC):
    """A way to spawn copies of a scenario's program."""

    name: str

    @abstractmethod
    def batch(self, count: int, together: int) -> float:
        """
        Spawn copies and wait for their ends.

        Args:
            count: How many in all; a multiple of ``together``.
            together: How many at once.

        Returns:
            Seconds.

        Raises:
            RunError: A copy failed.
        """


class Restores(Spawner):
    """Restore copies of a snapshot from this process."""

    name = "libcriu_py.copies.restore"

    def __init__(self, snapshot: Path) -> None:
        """
        Use a snapshot.

        Args:
            snapshot: Its directory.
        """
        self.snapshot = snapshot

    def start(self) -> RestoredProcess:
        """Start one copy."""
        null = subprocess.DEVNULL
        return restore(self.snapshot, stdin=null, stdout=null)

    def batch(self, count: int, together: int) -> float:
        """See the base class."""
        start = time.monotonic()
        for _ in range(0, count, together):
            with ExitStack() as stack:
                try:
                    copies = [stack.enter_context(self.start()) for _ in range(together)]
                    statuses = [copy.wait() for copy in copies]
                except CriuError as error:
                    message = str(error)
                    raise RunError(message) from error
            check(self.name, statuses)
        return time.monotonic() - start


class Commands(Spawner):
    """Start a command with ``subprocess``."""

    def __init__(self, name: str, argv: Sequence[str]) -> None:
        """
        Use a command.

        Args:
            name: What to call it.
            argv: The command.
        """
        self.name = name
        self.argv = argv

    def start(self) -> subprocess.Popen[bytes]:
        """Start one copy."""
        return subprocess.Popen(
            self.argv,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def batch(self, count: int, together: int) -> float:
        """See the base class."""
        start = time.monotonic()
        for _ in range(0, count, together):
            copies = [self.start() for _ in range(together)]
            check(self.name, [copy.wait() for copy in copies])
        return time.monotonic() - start


class ForkServer(Spawner):
    """Have multiprocessing's forkserver do it, in a process of its own."""

    name = "forkserver"

    def __init__(self, scenario: Scenario, stack: ExitStack) -> None:
        """
        Start the server, with the program's modules imported.

        Args:
            scenario: The program.
            stack: Ends the server.

        Raises:
            RunError: It does not start.
        """
        self.process = stack.enter_context(
            subprocess.Popen(
                [
                    sys.executable,
                    str(PEERS / "forkserver.py"),
                    f"benchmarks.programs.{scenario.program.stem}",
                ],
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
        )
        if self.answer() != "ready":
            message = "the forkserver did not start"
            raise RunError(message)

    def answer(self) -> str:
        """Read a line from the server."""
        if self.process.stderr is None:
            raise AssertionError
        return self.process.stderr.readline().strip()

    def batch(self, count: int, together: int) -> float:
        """See the base class."""
        if self.process.stdin is None:
            raise AssertionError
        self.process.stdin.write(f"{count} {together}\n")
        answer = self.answer()
        try:
            return float(answer)
        except ValueError as error:
            message = f"the forkserver says: {answer}"
            raise RunError(message) from error


def check(name: str, statuses: Sequence[int | None]) -> None:
    """
    Check that every copy ended well.

    Args:
        name: How they were started.
        statuses: Their exit statuses.

    Raises:
        RunError: One did not.
    """
    if any(statuses):
        message = f"{name}: copies ended with {list(statuses)}"
        raise RunError(message)


def spawners(scenario: Scenario, directory: Path, stack: ExitStack) -> list[Spawner]:
    """
    Make ready the ways to spawn a scenario's program.

    Args:
        scenario: The program.
        directory: For its snapshot.
        stack: Ends what was started.

    Raises:
        RunError: The snapshot or the server failed.
        Unavailable: The package is not installed.
    """
    take_snapshot(scenario, directory)
    options = ["--no-fallback", str(directory)]
    return [
        Commands("subprocess", [sys.executable, str(scenario.program)]),
        Commands("libcriu-py run", [command(), "run", *options]),
        Commands("libcriu-py-run", [command("libcriu-py-run"), *options]),
        Restores(directory),
        ForkServer(scenario, stack),
    ]
