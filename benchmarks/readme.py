"""
Put what was measured into the README and docs/benchmarks.md, between their marks.

A part whose results are not there is left as it is.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import tables
from benchmarks.bars import RESULTS, Missing, Results

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
MARK = "<!-- {name}: {end} -->\n"
PARTS: dict[str, dict[str, Callable[[Results], str]]] = {
    "README.md": {"times": lambda results: tables.main_table(results) + "\n" + about(results, short=True)},
    "docs/benchmarks.md": {
        "machine": lambda results: about(results, short=False),
        "bars": tables.bar_table,
        "first": lambda results: tables.starts(results, "first_output_ms"),
        "end": lambda results: tables.starts(results, "end_ms") + left_out(results),
        "dumps": tables.dumps,
        "growth": tables.growth,
        "copies": tables.copies,
        "touch": tables.touch,
        "standby": tables.standby,
        "pause": tables.pause,
        "modes": tables.modes,
        "spawn": tables.spawn,
    },
}
"""What is written between which marks of which file."""


def about(results: Results, *, short: bool) -> str:
    """
    Say what was measured where.

    Args:
        results: What was measured.
        short: For the README.
    """
    machine = results.get("startup", "machine")
    text = f"Medians of {results.get('startup', 'runs')} interleaved runs on {tables.machine(machine)}."
    if short:
        return text + " Copies end with `--exit fast`.\n"
    packages = ", ".join(f"{name} {version}" for name, version in sorted(machine["packages"].items()))
    kind = f" torch is a {machine['torch']} build." if machine.get("torch") else ""
    return f"{text} {machine['date']}; {packages}.{kind}\n"


def left_out(results: Results) -> str:
    """
    Say what was not measured.

    Args:
        results: What was measured.
    """
    return tables.skipped(results.files["startup"].get("skipped", []))


def fill(text: str, name: str, content: str) -> str:
    """
    Put a part in its place.

    Args:
        text: The file.
        name: The part.
        content: Markdown.

    Raises:
        ValueError: The marks are not there.
    """
    begin, end = (MARK.format(name=name, end=end) for end in ("begin", "end"))
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    filled, count = pattern.subn(lambda _: begin + content + end, text)
    if count != 1:
        message = f"the marks {begin.strip()} and {end.strip()} are there {count} times, not once"
        raise ValueError(message)
    return filled


def main(argv: list[str] | None = None) -> int:
    """
    Rewrite the files.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Put the measured times into the README and docs/benchmarks.md.")
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS, help="directory of the JSON files")
    parser.add_argument("--root", type=Path, default=ROOT, help="where README.md and docs are (default: this tree)")
    options = parser.parse_args(argv)
    results = Results(options.results)
    for name, parts in PARTS.items():
        path = options.root / name
        text = path.read_text(encoding="utf-8")
        for part, write in parts.items():
            try:
                text = fill(text, part, write(results))
            except Missing:
                print(f"{name}: {part} was not measured, and stays as it is", file=sys.stderr)
            except ValueError as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 1
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
