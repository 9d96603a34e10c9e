"""One thing in a process, and what a dump makes of it."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Verdict(enum.Enum):
    """What becomes of it."""

    FINE = "fine"
    """It is dumped and restored."""
    HANDLED = "handled"
    """This package, or an option of the dump, takes care of it."""
    NEEDS_HOOK = "needs hook"
    """The program must let go of it before the dump."""
    IMPOSSIBLE = "impossible"
    """criu cannot dump it."""


class Finding(NamedTuple):
    """
    One thing in a process.

    Attributes:
        kind: What sort of thing.
        what: Which one: a path, a peer, a name.
        verdict: What becomes of it.
        advice: What to do, or what to know.
        fd: The descriptor, where it is one.
        stack: Where it was opened, the innermost call first, if that was traced.
    """

    kind: str
    what: str
    verdict: Verdict
    advice: str = ""
    fd: int | None = None
    stack: tuple[str, ...] = ()

    @property
    def is_problem(self) -> bool:
        """Return whether it makes a dump fail."""
        return self.verdict in {Verdict.NEEDS_HOOK, Verdict.IMPOSSIBLE}

    def __str__(self) -> str:
        where = "" if self.fd is None else f" (fd {self.fd})"
        opened = f"; opened at {self.stack[0]}" if self.stack else ""
        return f"{self.kind} {self.what}{where}: {self.advice or self.verdict.value}{opened}"
