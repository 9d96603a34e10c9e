"""A criu whose calls of ptrace(2) are seen, or held up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libcriu_py.criu.find import find_criu

if TYPE_CHECKING:
    from pathlib import Path

SHIM = """#!/bin/sh
exec strace --daemonize --quiet=all --trace=ptrace {options} --output="{log}.$$" {criu} "$@"
"""
"""
A criu whose own system calls are seen, not those of the processes that it makes: it could not trace them. The tracer is
no parent of it, since what it restores becomes a child of its own parent.
"""


class Traced:
    """
    A criu that says how it traces.

    Args:
        directory: For the program and what it says.
        delay: Microseconds that each of its calls of ptrace(2) is held up before it comes back.
    """

    def __init__(self, directory: Path, *, delay: int = 0) -> None:
        self.path = directory / "criu"
        self._logs = directory / "ptrace"
        self._logs.mkdir()
        options = f"--inject=ptrace:delay_exit={delay}" if delay else ""
        self.path.write_text(SHIM.format(options=options, log=self._logs / "of", criu=find_criu()))
        self.path.chmod(0o755)

    def said(self) -> str:
        """Return the calls of ptrace(2) since this was asked before."""
        said = []
        for log in sorted(self._logs.iterdir()):
            said.append(log.read_text())
            log.unlink()
        return "".join(said)
