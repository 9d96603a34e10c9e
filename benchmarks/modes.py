"""
Compare the ways to be allowed: launch to first output, for each mode that works.

Which modes that are depends on who runs it: root has ``root`` and ``rootless``, an
ordinary account ``rootless`` and, once ``libcriu-py setup`` was used for its group or
LIBCRIU_PY_CRIU names a criu with file capabilities, ``capability``.

Run it as ``python benchmarks/modes.py`` in an environment where the package is
installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.common import Sample, measure, round_robin, summarize
from benchmarks.scenarios import LABELS, SCENARIOS
from benchmarks.snapshots import Unavailable, command, environment
from libcriu_py.binary import find_criu
from libcriu_py.privilege import Privilege, capable_criu, find_obstacle

if TYPE_CHECKING:
    from benchmarks.scenarios import Scenario

MODES = (Privilege.ROOT, Privilege.CAPABILITY, Privilege.ROOTLESS)
WARM_UP = 3  # rounds
LAUNCHERS: tuple[tuple[str, list[str]], ...] = (("libcriu-py-run", []), ("libcriu-py", ["run"]))


class Options(argparse.Namespace):
    """
    The command line.
    """

    runs: int
    only: list[str]
    json: Path | None


def launchers() -> dict[str, list[str]]:
    """
    Return the commands that restore, by name.
    """
    found = {}
    for name, words in LAUNCHERS:
        try:
            found[name] = [command(name), *words]
        except Unavailable:
            continue
    return found


def modes(console: Console) -> list[Privilege]:
    """
    Return the modes that work here, and say what stops the others.

    Args:
        console: Where to say it.

    """
    working = []
    for mode in MODES:
        obstacle = find_obstacle(mode, find_criu())
        if obstacle is None:
            working.append(mode)
        else:
            console.print(f"[yellow]skipped:[/yellow] {mode.value}: {obstacle}", highlight=False, soft_wrap=True)
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


def compare(scenario: Scenario, working: list[Privilege], directory: Path, runs: int) -> dict[str, list[Sample]]:
    """
    Measure a scenario in each mode with each launcher, in turns.

    Args:
        scenario: The program.
        working: The modes.
        directory: For the snapshots.
        runs: Rounds that count.

    Returns:
        The samples by "launcher, mode".

    """
    ways = []
    for mode in working:
        target = snapshot(scenario, mode, directory)
        ways += [
            (f"{name}, {mode.value}", [*words, "--no-fallback", str(target)], variables(mode))
            for name, words in launchers().items()
        ]
    samples: dict[str, list[Sample]] = {name: [] for name, _, _ in ways}
    for number, (name, argv, env) in round_robin(ways, WARM_UP + runs):
        sample = measure(argv, env=env, expect=scenario.expect)
        if number >= WARM_UP:
            samples[name].append(sample)
    return samples


def parse(argv: list[str] | None) -> Options:
    """
    Read the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    """
    parser = argparse.ArgumentParser(prog="modes.py", description="Compare the modes of libcriu_py.")
    parser.add_argument("--runs", type=int, default=30, metavar="N", help="rounds (default: 30)")
    parser.add_argument(
        "--only", action="append", choices=SCENARIOS, help="measure this scenario; may be given again (default: empty)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write JSON")
    options = parser.parse_args(argv, namespace=Options())
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    options.only = options.only or ["empty"]
    return options


def main(argv: list[str] | None = None) -> int:
    """
    Measure and print the table.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    Returns:
        0, or 1 when no mode works.

    """
    options = parse(argv)
    console = Console()
    working = modes(console)
    if not working:
        return 1
    table = Table("", "by", "mode", "first output, ms", "quartiles", "end, ms", title="By mode, medians")
    written: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="libcriu_py-bench-") as directory:
        for name in options.only:
            measured = compare(SCENARIOS[name](), working, Path(directory), options.runs)
            for way, samples in measured.items():
                first = summarize([sample.first for sample in samples])
                end = summarize([sample.end for sample in samples])
                quartiles = f"{first.low:.1f} to {first.high:.1f}"
                table.add_row(
                    LABELS.get(name, name), *way.split(", "), f"{first.median:.1f}", quartiles, f"{end.median:.1f}"
                )
                written[f"{name}: {way}"] = {"first": first._asdict(), "end": end._asdict()}
    console.print(table)
    if options.json is not None:
        described = machine.describe(find_criu(), environment())
        text = json.dumps({"uid": os.geteuid(), "machine": described, "modes": written}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
