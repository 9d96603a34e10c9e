"""The figures as a table, and between the marks of a document."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from tests.faults.verdict import Judgement, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_COLUMNS = [verdict for verdict in Verdict if verdict is not Verdict.BROKEN]


def table(judged: Iterable[tuple[str, Judgement]]) -> str:
    """Return how often each came of each kind of fault."""
    rows: dict[str, Counter[Verdict]] = {}
    for row, judgement in judged:
        rows.setdefault(row, Counter())[judgement.verdict] += 1
    total: Counter[Verdict] = sum(rows.values(), Counter())
    heads = ["fault", "tried", *(verdict.value for verdict in _COLUMNS)]
    lines = [_line(heads), _line(["---", *("---:" for _ in heads[1:])])]
    for name, counts in [*rows.items(), ("**all**", total)]:
        lines.append(_line([name, str(counts.total()), *(str(counts[verdict]) for verdict in _COLUMNS)]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def write(path: Path, name: str, text: str) -> None:
    """Put a text between the marks of a document that have this name."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    path.write_text(pattern.sub(lambda _: f"{begin}{text}{end}", path.read_text(encoding="utf-8")), encoding="utf-8")
