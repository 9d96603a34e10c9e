"""
What is to be done with descriptors before a dump, by rules: the first that fits counts.

    [[tool.libcriu_py.fds]]
    kind = "file"             # as preflight names it; left out, any
    match = "/var/log/*"      # a glob on its path or peer; left out, any
    action = "reopen"

An action is "error" (refuse the dump), "close", "null" (/dev/null in its place), "reopen" (closed for the dump, opened
again after it under the same number, by path, appending where it was written), or "ignore" (leave it to criu).
"""

from __future__ import annotations

import fcntl
import os
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from libcriu_py.findings.finding import Finding

ACTIONS = ("error", "close", "null", "reopen", "ignore")


class Policy(NamedTuple):
    """
    One rule.

    Attributes:
        action: One of `ACTIONS`.
        kind: The kind of a finding; "*" for any.
        match: A glob for what it is.
    """

    action: str
    kind: str = "*"
    match: str = "*"

    def fits(self, finding: Finding) -> bool:
        """Return whether the rule is for this descriptor."""
        return fnmatchcase(finding.kind, self.kind) and fnmatchcase(finding.what, self.match)


class Reopening(NamedTuple):
    """A file that was closed and is to be opened again."""

    fd: int
    path: str
    flags: int
    inheritable: bool
    offset: int

    def reopen(self) -> None:
        """
        Open it under its old number.

        Raises:
            OSError: It cannot be opened.
        """
        opened = os.open(self.path, self.flags | os.O_CLOEXEC)
        if self.flags & os.O_ACCMODE == os.O_RDONLY and self.offset > 0:
            os.lseek(opened, self.offset, os.SEEK_SET)
        if opened == self.fd:
            os.set_inheritable(opened, self.inheritable)
            return
        os.dup2(opened, self.fd, inheritable=self.inheritable)
        os.close(opened)


def policy(values: Mapping[str, Any]) -> Policy:
    """
    Make a rule of a table.

    Raises:
        ValueError: It has another key, or another action.
    """
    unknown = sorted(set(values) - {"action", "kind", "match"})
    if unknown or values.get("action") not in ACTIONS:
        message = (
            f"{dict(values)} is no rule for descriptors: it has an action ({', '.join(ACTIONS)}), and may have a kind "
            "and a match"
        )
        raise ValueError(message)
    return Policy(**values)


def from_toml(path: str) -> list[Policy]:
    """
    Read the rules of a pyproject.toml, table tool.libcriu_py.fds.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no TOML, or has a wrong rule.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    with open(path, "rb") as file:
        tables = tomllib.load(file)
    return [policy(values) for values in tables.get("tool", {}).get("libcriu_py", {}).get("fds", [])]


def first_fit(rules: Iterable[Policy], finding: Finding) -> str:
    """Return the action for a descriptor; "" where no rule fits."""
    return next((rule.action for rule in rules if rule.fits(finding)), "")


def apply(action: str, finding: Finding) -> Reopening | None:
    """
    Close a descriptor as a rule says.

    Args:
        action: "close", "null" or "reopen".
        finding: The descriptor.

    Returns:
        How to open it again, if that is wanted.
    """
    fd = finding.fd
    if fd is None:
        return None
    kept = None
    if action == "reopen":
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        seekable = finding.kind == "file"
        offset = os.lseek(fd, 0, os.SEEK_CUR) if seekable else 0
        wanted = flags & (os.O_ACCMODE | os.O_NONBLOCK | os.O_SYNC | os.O_DIRECTORY)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            wanted |= os.O_APPEND
        kept = Reopening(fd, finding.what, wanted, os.get_inheritable(fd), offset)
    if action in {"null", "reopen"}:
        # The number stays taken, so that nothing else gets it before it is opened again.
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, fd, inheritable=os.get_inheritable(fd))
        os.close(null)
    else:
        os.close(fd)
    return kept
