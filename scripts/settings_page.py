"""Print docs/settings.md from the table of settings; `make format` writes the file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from libcriu_py import settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from libcriu_py.settings import Setting

HEAD = """\
# Settings

`make format` writes this page from `libcriu_py/settings.py`; edit that file instead.

A variable overrides what the program itself says; an empty one counts as unset, and a flag is on with any other value.
An option that is not given leaves its setting to the program. The defaults of lists are empty.
"""


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first row is its head."""
    head, *others = rows
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *others))


def kind(setting: Setting) -> str:
    """Return the type of a setting, or its choices."""
    return ", ".join(f"`{choice}`" for choice in setting.choices) or setting.kind


def names(setting: Setting, use: str) -> str:
    """Return the names of a setting where it is used."""
    words = setting.options if use == "snapshot" else [setting.name]
    return ", ".join(f"`{word}`" for word in words)


def meaning(setting: Setting) -> str:
    """Return what a variable does; if it belongs to an argument or option, the text is there."""
    if "checkpoint" in setting.uses:
        return f"overrides `{setting.name}` of `checkpoint()`"
    if not setting.options:
        return setting.text
    return f"{'adds to' if setting.kind == 'list' else 'default of'} `{setting.options[0]}`"


def page() -> str:
    """Return the whole page."""
    sections = []
    for title, use in (
        ("Arguments of `checkpoint()`", "checkpoint"),
        ("More arguments of `checkpoint_here()`", "here"),
        ("Arguments of `restore()`", "restore"),
        ("Options of `libcriu-py snapshot`", "snapshot"),
    ):
        rows = [(names(s, use), kind(s), f"`{s.default!r}`", s.text) for s in settings.used_by(use)]
        sections.append((title, [("name", "type", "default", "meaning"), *rows]))
    readers = {True: "package, launcher", False: "package"}
    variables = [
        (f"`{s.variable}`", kind(s), readers[s.launcher], meaning(s)) for s in settings.TABLE.values() if s.variable
    ]
    sections.append(("Variables", [("name", "type", "used by", "meaning"), *variables]))
    return HEAD + "".join(f"\n## {title}\n\n{table(rows)}" for title, rows in sections)


if __name__ == "__main__":
    sys.stdout.write(page())
