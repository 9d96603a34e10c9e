"""
Show what the package does, with a pandas program and a CSV file of realistic size.

The demo takes a snapshot of ``sales.py`` after its imports. It then runs several command lines, one of them with a
pipe, conventionally and restored in turns, checks that the outputs are equal, and prints a table of the times. It works
as root and as a user without privileges.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from libcriu_py.criu.find import find_criu
from libcriu_py.errors import CriuError
from libcriu_py.privilege.decision import decide
from libcriu_py.snapshot import launcher

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
PROGRAM = HERE / "sales.py"
LIBCRIU_PY = [sys.executable, "-m", "libcriu_py"]


class DemoError(Exception):
    """A failure of the demo, described in one sentence."""


class Case(NamedTuple):
    """
    A command line to run both ways.

    Attributes:
        arguments: What follows the program's name; CSV stands for the file.
        piped: Whether the file comes through a pipe.
    """

    arguments: str
    piped: bool = False

    @property
    def title(self) -> str:
        """What a user would type."""
        return f"{'cat CSV | ' if self.piped else ''}sales.py {self.arguments}"


CASES = (
    Case("CSV --by region"),
    Case("CSV --by product --top 5"),
    Case("- --by month", piped=True),
    Case("--help"),
)
"""The last one does no work, so its time is the start-up time."""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run a pandas program conventionally and restored, and compare.")
    parser.add_argument("--rows", type=int, default=200_000, metavar="N", help="lines of the CSV file (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="runs of each kind (%(default)s)")
    args = parser.parse_args(argv)
    if args.rows < 1 or args.rounds < 1:
        parser.error("--rows and --rounds must be at least 1")
    return args


def make_csv(rows: int) -> Path:
    """Return a CSV file with that many lines of data; make it unless an earlier run has."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "libcriu_py"
    path = cache / f"sales-{rows}.csv"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        execute([sys.executable, HERE / "make_sales_csv.py", partial, "--rows", str(rows)])
        partial.replace(path)
    return path


def execute(argv: Sequence[str | Path], source: Path | None = None) -> str:
    """
    Run a program and return its output.

    Args:
        argv: The program and its arguments.
        source: A file that `cat` sends to it through a pipe.

    Raises:
        DemoError: It failed.
    """
    command = [str(word) for word in argv]
    if source is None:
        done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    else:
        with subprocess.Popen(["cat", str(source)], stdout=subprocess.PIPE) as cat:
            done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=cat.stdout)
    if done.returncode != 0:
        message = f"{shlex.join(command)} ended with status {done.returncode}:\n{(done.stderr or done.stdout).strip()}"
        raise DemoError(message)
    return done.stdout


def run_both(case: Case, csv: Path, snapshot: Path) -> tuple[tuple[float, str], tuple[float, str]]:
    """Run one command line conventionally, then restored; return seconds and output of each."""
    arguments = [str(csv) if word == "CSV" else word for word in case.arguments.split()]
    commands: tuple[list[str | Path], list[str | Path]] = (
        [sys.executable, PROGRAM, *arguments],
        # Without fallback, so that a conventional start is not taken for a restore.
        [launcher.path(), "--no-fallback", snapshot, "--", *arguments],
    )
    measured = []
    for command in commands:
        begin = time.perf_counter()
        output = execute(command, csv if case.piped else None)
        measured.append((time.perf_counter() - begin, output))
    return measured[0], measured[1]


def measure(rounds: int, csv: Path, snapshot: Path, console: Console) -> dict[Case, list[tuple[float, float]]]:
    """
    Run every case both ways, in turns.

    Args:
        rounds: The number of runs of each kind.
        csv: The file.
        snapshot: The program's snapshot.
        console: Where to show progress.

    Returns:
        The seconds of each case's rounds, conventional and restored.

    Raises:
        DemoError: A restored run printed something different.
    """
    times: dict[Case, list[tuple[float, float]]] = {case: [] for case in CASES}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("running", total=(rounds + 1) * len(CASES))
        for turn in range(rounds + 1):
            for case in CASES:
                (conventional, expected), (restored, printed) = run_both(case, csv, snapshot)
                if printed != expected:
                    message = f"{case.title} printed, restored:\n{printed}\nbut conventionally:\n{expected}"
                    raise DemoError(message)
                if turn:  # the first round warms the caches
                    times[case].append((conventional, restored))
                progress.advance(task)
    return times


def table_of(times: dict[Case, list[tuple[float, float]]]) -> Table:
    """Lay out the medians."""
    table = Table(title="median time from start to exit, ms")
    table.add_column("command line", overflow="fold")
    for heading in ("conventional", "restored", "speed-up"):
        table.add_column(heading, justify="right")
    for case, pairs in times.items():
        conventional, restored = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
        table.add_row(case.title, f"{conventional:.0f}", f"{restored:.0f}", f"{conventional / restored:.1f} x")
    return table


def demonstrate(args: argparse.Namespace, console: Console) -> None:
    """Run the steps of the demo, and report each."""
    decision = decide()
    console.print(f"using {find_criu()} in mode {decision.mode.value}", highlight=False, soft_wrap=True)
    console.print(f"making a CSV file of {args.rows:,} sales, if there is none ...", highlight=False)
    csv = make_csv(args.rows)
    with tempfile.TemporaryDirectory(prefix="libcriu_py-demo-") as directory:
        snapshot = Path(directory) / "snap"
        console.print("taking a snapshot of sales.py after its imports ...", highlight=False)
        learn = shlex.join([str(csv), "--by", "region"])
        execute([*LIBCRIU_PY, "snapshot", "-o", snapshot, "--learn", learn, "--exit", "fast", PROGRAM])
        case = CASES[1]
        console.print(f"restoring it once, with new arguments: {case.title}", highlight=False)
        console.print(run_both(case, csv, snapshot)[1][1].rstrip(), highlight=False)
        console.print(
            f"running {len(CASES)} command lines, one through a pipe, {args.rounds} times each way in turns ...",
            highlight=False,
        )
        times = measure(args.rounds, csv, snapshot, console)
    console.print("every restored run printed the same as the conventional one", highlight=False)
    console.print(table_of(times))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo, and return the exit status."""
    args = parse_arguments(argv)
    try:
        demonstrate(args, Console())
    except (DemoError, CriuError) as error:
        print(f"demo.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
