"""
Put the measured times into the README, between its two marks.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.scenarios import LABELS

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results" / "startup.json"
BEGIN, END = "<!-- times: begin -->\n", "<!-- times: end -->\n"

CONVENTIONAL = "conventional"
COLUMNS = {
    "libcriu-py-run": "restored",
    "libcriu-py-run, copied": "restored, memory copied",
    "launcher in Python": "launcher in Python",
    "criu restore": "raw `criu restore`",
}
"""
The variants that are shown beside the conventional start, by their names in the results.
"""


def table(results: dict[str, Any]) -> str:
    """
    Write the table.

    Args:
        results: What `benchmarks.startup` has saved.

    Returns:
        Markdown.
    """
    scenarios = results["scenarios"]
    known = [name for name in COLUMNS if any(name in scenario["variants"] for scenario in scenarios.values())]
    heads = ["first output, ms", CONVENTIONAL, *(COLUMNS[name] for name in known), "start to exit", "image, MB"]
    rows = [heads, ["---", *("---:" for _ in heads[1:])]]
    rows += [row(LABELS.get(name, name), scenario, known) for name, scenario in scenarios.items()]
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([*lines, "", machine(results["machine"], scenarios)]) + "\n"


def row(name: str, scenario: dict[str, Any], known: list[str]) -> list[str]:
    """
    Write one program's cells.
    """
    variants = scenario["variants"]
    base = variants[CONVENTIONAL]
    cells = [name, milliseconds(base["first_output_ms"])]
    for column in known:
        if column not in variants:
            cells.append("")
            continue
        measured = variants[column]["first_output_ms"]
        cells.append(f"{milliseconds(measured)} ({base['first_output_ms']['median'] / measured['median']:.3g} x)")
    end = variants.get(known[0], {}).get("end_ms")
    cells.append("" if end is None else f"{base['end_ms']['median'] / end['median']:.3g} x")
    return [*cells, f"{scenario['image_bytes'] / 1e6:.0f}"]


def milliseconds(summary: dict[str, float]) -> str:
    """
    Write a median.
    """
    return f"{summary['median']:.0f}" if summary["median"] >= 100 else f"{summary['median']:.1f}"


def machine(about: dict[str, Any], scenarios: dict[str, Any]) -> str:
    """
    Say what was measured where.
    """
    first = next(iter(scenarios.values()))["variants"][CONVENTIONAL]["first_output_ms"]
    return (
        f"Medians of {first['runs']} interleaved runs (times as fast as the conventional start in parentheses), "
        f"{about['cores']} cores of {about['processor']}, kernel {about['kernel'].partition('-')[0]}, "
        f"Python {about['python']}, criu {about['criu']}, load {about['load'][0]:.1f}. "
        "Copies end with `--exit fast`. `make bench` measures anew; the spread is in `benchmarks/results/startup.json`."
    )


def main() -> int:
    """
    Rewrite the README.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Put the measured times into the README.")
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS, help="what benchmarks.startup has saved")
    options = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"{README} lacks the marks {BEGIN.strip()} and {END.strip()}", file=sys.stderr)
        return 1
    results = json.loads(options.results.read_text(encoding="utf-8"))
    README.write_text(before + begin + table(results) + end + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
