"""
Measure jobs that read or write 1 to 100 percent of a program's memory.

The program holds a large array when it is saved. What a copy of it needs for its job depends on how it gets the array:
read at its start, mapped and read page by page, or mapped with the pages that it will write to copied at once,
which were learned (``libcriu-py optimize --learn-pages``). A conventional start makes the array anew.

Run it as ``python benchmarks/touch.py`` in an environment where the package is
installed with its extra ``bench``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if not __package__:  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks import frame
from benchmarks.common import RunError, Sample, Summary, measure, summarize
from benchmarks.report import cell
from benchmarks.scenarios import PROGRAMS
from benchmarks.snapshots import Unavailable, command, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROGRAM = PROGRAMS / "numpy_touch.py"
SHARES = (1, 10, 50, 100)
CONVENTIONAL, COPIED, MAPPED, LEARNED = WAYS = ("conventional", "copied", "mapped", "learned")


class Job(NamedTuple):
    """What a run does with its memory."""

    kind: str
    """``reads`` or ``writes``."""
    share: int
    """Percent of the array."""

    def arguments(self, megabytes: int) -> list[str]:
        """
        Return the arguments of the program.

        Args:
            megabytes: The size of the array.
        """
        return [str(megabytes), self.kind, str(self.share)]


class Options(frame.Options):
    """The command line."""

    megabytes: int
    share: list[int]

    @property
    def jobs(self) -> list[Job]:
        """Return the jobs to measure."""
        return [Job(kind, share) for kind in ("reads", "writes") for share in self.share or SHARES]


def parse(argv: list[str] | None) -> Options:
    """
    Read the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.
    """
    parser = frame.Parser("touch.py", "Measure jobs that use a part of a large memory.", runs=7)
    parser.add_count("--megabytes", default=1024, text="size of the array in MiB")
    parser.add_argument(
        "--share",
        type=int,
        action="append",
        default=[],
        choices=SHARES,
        help="percent of the array that is used; may be given more than once (default: all)",
    )
    return parser.read(argv, Options())


def run_command(*words: str, memory: str = "auto") -> None:
    """
    Run one of the package's commands.

    Args:
        words: Its arguments.
        memory: How the copies of a new snapshot get theirs.

    Raises:
        RunError: It failed.
    """
    done = subprocess.run(
        [command(), *words],
        env={**environment(), "LIBCRIU_PY_MEMORY": memory},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        message = f"libcriu-py {words[0]}: {done.stderr.strip()}"
        raise RunError(message)


def take_snapshots(directory: Path, options: Options) -> None:
    """
    Make the snapshots: one with copied memory, one with mapped memory, and for each job one that has learned it.

    Args:
        directory: For the snapshots.
        options: The command line.

    Raises:
        RunError: A command failed.
    """
    for name, memory in ((COPIED, "copy"), (MAPPED, "auto")):
        arguments = options.jobs[0].arguments(options.megabytes)
        words = ("--self", "-o", str(directory / name), str(PROGRAM), *arguments)
        run_command("snapshot", *words, memory=memory)
    for job in options.jobs:
        learned = place(directory, LEARNED, job)
        # The same files, and so the same page cache.
        shutil.copytree(directory / MAPPED, learned, copy_function=os.link)
        run_command("optimize", "--learn-pages", " ".join(job.arguments(options.megabytes)), str(learned))


def place(directory: Path, way: str, job: Job) -> Path:
    """
    Return the path of the snapshot for a job.

    Args:
        directory: Where the snapshots are.
        way: One of WAYS, but CONVENTIONAL.
        job: The job.
    """
    return directory / (f"{way}, {job.kind} {job.share}" if way == LEARNED else way)


def start(directory: Path, way: str, job: Job, megabytes: int) -> Sample:
    """
    Run a job.

    Args:
        directory: Where the snapshots are.
        way: One of WAYS.
        job: The job.
        megabytes: The size of the array.

    Raises:
        RunError: It failed.
    """
    if way == CONVENTIONAL:
        argv = [sys.executable, str(PROGRAM)]
    else:
        argv = [command("libcriu-py-run"), "--no-fallback", str(place(directory, way, job)), "--"]
    return measure([*argv, *job.arguments(megabytes)], env=environment(), expect="ready")


class Times(NamedTuple):
    """How long a job took, started in one way."""

    first: Summary
    end: Summary


def rounds(bench: frame.Frame[Options], directory: Path) -> dict[Job, dict[str, Times]]:
    """
    Run all jobs, started in all ways, in turns.

    Args:
        bench: Measures.
        directory: Where the snapshots are.
    """
    jobs, megabytes = bench.options.jobs, bench.options.megabytes

    def run(way: str, job: Job) -> Callable[[], Sample]:
        return lambda: start(directory, way, job, megabytes)

    samples = bench.turns("jobs", {(*job, way): run(way, job) for job in jobs for way in WAYS})
    return {job: {way: times(taken) for way in WAYS if (taken := samples.get((*job, way)))} for job in jobs}


def times(samples: Sequence[Sample]) -> Times:
    """
    Boil samples down.

    Args:
        samples: Of the same job and way.
    """
    return Times(summarize([sample.first for sample in samples]), summarize([sample.end for sample in samples]))


def show(measured: dict[Job, dict[str, Times]], what: str) -> Table:
    """
    Make a table.

    Args:
        measured: The times of each job and way.
        what: A field of them.
    """
    table = Table(
        title=f"Jobs that use a part of their memory, ms to {what}: median, quartiles",
        box=SIMPLE_HEAD,
        show_edge=False,  # with this and the padding it fits into 80 columns
        padding=(0, 1, 0, 0),
    )
    table.add_column("job", no_wrap=True, min_width=len("writes 100 %"))
    for way in WAYS:
        table.add_column(way, justify="right", no_wrap=True)
    for job, ways in measured.items():
        cells = (cell(getattr(ways[way], what)) if way in ways else "-" for way in WAYS)
        table.add_row(f"{job.kind} {job.share} %", *cells, end_section=job.share == SHARES[-1])
    return table


def as_json(measured: dict[Job, dict[str, Times]]) -> list[dict[str, object]]:
    """
    Turn the times into what JSON can hold.

    Args:
        measured: The times of each job and way.
    """
    return [
        {
            **job._asdict(),
            "ways": {
                way: {"first_output_ms": found.first._asdict(), "end_ms": found.end._asdict()}
                for way, found in ways.items()
            },
        }
        for job, ways in measured.items()
    ]


def main(argv: list[str] | None = None) -> int:
    """
    Measure, print the table and write JSON if asked for.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    Returns:
        0, or 1 when something could not be measured.
    """
    options = parse(argv)
    bench = frame.Frame(options)
    with bench.directory() as directory:
        try:
            with bench.console.status("snapshots"):
                take_snapshots(directory, options)
            measured = rounds(bench, directory)
        except (RunError, Unavailable) as error:
            bench.skip(str(error))
            return 1
    for what in Times._fields:
        bench.console.print(show(measured, what))
    bench.write(megabytes=options.megabytes, jobs=as_json(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
