"""
Compare the ways to be allowed: launch to first output, for each mode that works.

Which modes that are depends on who runs it: root has ``root`` and ``rootless``, an
ordinary account ``rootless`` and, once ``libcriu-py setup`` was used for its group or
LIBCRIU_PY_CRIU names a criu with file capabilities, ``capability``.

Run it as ``python benchmarks/modes.py`` in an environment where the package is
installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.table import Table

from benchmarks import frame
from benchmarks.common import Sample, measure, summarize
from benchmarks.scenarios import LABELS
from benchmarks.snapshots import Unavailable, command, environment
from libcriu_py.criu.find import find_criu
from libcriu_py.privilege.decision import capable_criu, find_obstacle
from libcriu_py.privilege.mode import Privilege

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.budget import Budget
    from benchmarks.scenarios import Scenario

MODES = (Privilege.ROOT, Privilege.CAPABILITY, Privilege.ROOTLESS)
WARM_UP = 3  # rounds
LAUNCHERS: tuple[tuple[str, list[str]], ...] = (("libcriu-py-run", []), ("libcriu-py", ["run"]))


def launchers() -> dict[str, list[str]]:
    """Return the commands that restore, by name."""
    found = {}
    for name, words in LAUNCHERS:
        try:
            found[name] = [command(name), *words]
        except Unavailable:
            continue
    return found


def modes(bench: frame.Frame[frame.Selection]) -> list[Privilege]:
    """
    Return the modes that work here, and say what stops the others.

    Args:
        bench: Says it.
    """
    working = []
    for mode in MODES:
        obstacle = find_obstacle(mode, find_criu())
        if obstacle is None:
            working.append(mode)
        else:
            bench.skip(f"{mode.value}: {obstacle}")
    return working


def variables(mode: Privilege) -> dict[str, str]:
    """
    Return the environment in which a mode is used.

    Args:
        mode: The mode.
    """
    criu = capable_criu(find_criu()) if mode is Privilege.CAPABILITY else find_criu()
    return {**environment(), "LIBCRIU_PY_MODE": mode.value, "LIBCRIU_PY_CRIU": criu}


def snapshot(scenario: Scenario, mode: Privilege, directory: Path) -> Path:
    """
    Make a snapshot in a mode.

    Args:
        scenario: The program.
        mode: The mode.
        directory: Where it goes.
    """
    target = directory / f"{scenario.name}-{mode.value}"
    words = [command(), "snapshot", "-o", str(target), "--learn", "", str(scenario.program)]
    subprocess.run(words, env=variables(mode), cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return target


def compare(
    bench: frame.Frame[frame.Selection], scenario: Scenario, working: list[Privilege], directory: Path, budget: Budget
) -> dict[str, list[Sample]]:
    """
    Measure a scenario in each mode with each launcher, in turns.

    Args:
        bench: Measures.
        scenario: The program.
        working: The modes.
        directory: For the snapshots.
        budget: Of the rounds.

    Returns:
        The samples by "launcher, mode".
    """

    def way(argv: list[str], env: dict[str, str]) -> Callable[[], Sample]:
        return lambda: measure(argv, env=env, expect=scenario.expect)

    ways = {}
    for mode in working:
        target = snapshot(scenario, mode, directory)
        for name, words in launchers().items():
            ways[f"{name}, {mode.value}"] = way([*words, "--no-fallback", str(target)], variables(mode))
    return bench.turns(scenario.name, ways, warm_up=WARM_UP, budget=budget)


def parse(argv: list[str] | None) -> frame.Selection:
    """
    Read the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.
    """
    parser = frame.Parser("modes.py", "Compare the modes of libcriu_py.", runs=30)
    parser.add_only("empty")
    return parser.read(argv, frame.Selection())


def main(argv: list[str] | None = None) -> int:
    """
    Measure and print the table.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    Returns:
        0, or 1 when no mode works.
    """
    options = parse(argv)
    bench = frame.Frame(options)
    working = modes(bench)
    if not working:
        return 1
    table = Table("", "by", "mode", "first output, ms", "quartiles", "end, ms", title="By mode, medians")
    written: dict[str, object] = {}
    with bench.directory() as directory:
        for name, scenario, budget in bench.scenarios(options.only or ["empty"]):
            measured = compare(bench, scenario, working, directory, budget)
            for way, samples in measured.items():
                first = summarize([sample.first for sample in samples])
                end = summarize([sample.end for sample in samples])
                quartiles = f"{first.low:.1f} to {first.high:.1f}"
                table.add_row(
                    LABELS.get(name, name), *way.split(", "), f"{first.median:.1f}", quartiles, f"{end.median:.1f}"
                )
                written[f"{name}: {way}"] = {"first": first._asdict(), "end": end._asdict()}
    bench.console.print(table)
    bench.write(uid=os.geteuid(), modes=written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
