"""The command in a mode, and the files that its tests write."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.system.conftest import Mode


class Command(NamedTuple):
    """The command in a mode, and a directory of the mode's account."""

    mode: Mode
    place: Path

    def __call__(self, *args: object, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run the command with its output captured."""
        return self.mode.run([self.mode.account.python, "-m", "libcriu_py", *args], **settings)

    def restored(self, snapshot: Path, *args: object, **settings: Any) -> str:
        """Run a snapshot, without a fallback, and return what it printed."""
        done = self("run", "--no-fallback", snapshot, *args, **settings)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def inspect(self, snapshot: Path, *args: str) -> dict[str, Any]:
        """Return what inspect says of a snapshot."""
        done = self("inspect", "--json", *args, snapshot)
        assert (done.returncode, done.stderr) == (0, "")
        contents: dict[str, Any] = json.loads(done.stdout)
        return contents


def write(path: Path, text: str) -> Path:
    """Write a file, and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
