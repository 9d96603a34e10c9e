"""The figures as a table, and between the marks of a document."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from tests.faults.verdict import Judgement, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_COLUMNS = [verdict for verdict in Verdict if verdict is not Verdict.BROKEN]
_TOTAL = "**all**"

Rows = dict[str, Counter[Verdict]]


def rows(judged: Iterable[tuple[str, Judgement]]) -> Rows:
    """Return how often each came of each kind of fault."""
    found: Rows = {}
    for row, judgement in judged:
        found.setdefault(row, Counter())[judgement.verdict] += 1
    return found


def table(found: Mapping[str, Counter[Verdict]]) -> str:
    """Return rows as a table, with their sum."""
    total: Counter[Verdict] = sum(found.values(), Counter())
    heads = ["fault", "tried", *(verdict.value for verdict in _COLUMNS)]
    lines = [_line(heads), _line(["---", *("---:" for _ in heads[1:])])]
    for name, counts in [*found.items(), (_TOTAL, total)]:
        lines.append(_line([name, str(counts.total()), *(str(counts[verdict]) for verdict in _COLUMNS)]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def written(path: Path, name: str) -> Rows:
    """Return the rows of the table that a document has between the marks of this name."""
    found: Rows = {}
    for line in _pattern(name).findall(path.read_text(encoding="utf-8"))[0].splitlines():
        cells = line.strip("| ").split(" | ")
        if len(cells) == len(_COLUMNS) + 2 and cells[0] != _TOTAL and cells[1].isdigit():
            found[cells[0]] = Counter({verdict: int(cell) for verdict, cell in zip(_COLUMNS, cells[2:], strict=True)})
    return found


def write(path: Path, name: str, text: str) -> None:
    """Put a text between the marks of a document that have this name."""
    begin, end = _marks(name)
    old = path.read_text(encoding="utf-8")
    path.write_text(_pattern(name).sub(lambda _: f"{begin}{text}{end}", old), encoding="utf-8")


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"


def _pattern(name: str) -> re.Pattern[str]:
    begin, end = _marks(name)
    return re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
