"""One thing in a process, and whether it can be dumped."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple


class Verdict(enum.Enum):
    """What happens to it in a dump."""

    FINE = "fine"
    """It is dumped and restored."""
    HANDLED = "handled"
    """This package, or an option of the dump, handles it."""
    NEEDS_HOOK = "needs hook"
    """The program must close or release it before the dump."""
    IMPOSSIBLE = "impossible"
    """criu cannot dump it."""


class Finding(NamedTuple):
    """
    One thing in a process.

    Attributes:
        kind: What sort of thing.
        what: Which one: a path, a peer, a name.
        verdict: What happens to it in a dump.
        advice: What to do, or what to know.
        fd: The descriptor, if it is one.
        stack: The calls that opened it, innermost first, if they were traced.
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

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON."""
        return {**self._asdict(), "verdict": self.verdict.value}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Finding:
        """Return what `as_dict` was made of."""
        return cls(**{**data, "verdict": Verdict(data["verdict"]), "stack": tuple(data["stack"])})

    def __str__(self) -> str:
        where = "" if self.fd is None else f" (fd {self.fd})"
        opened = f"; opened at {self.stack[0]}" if self.stack else ""
        return f"{self.kind} {self.what}{where}: {self.advice or self.verdict.value}{opened}"
