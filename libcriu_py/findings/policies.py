"""
Rules for what to do with descriptors before a dump; the first rule that matches applies.

    [[tool.libcriu_py.fds]]
    kind = "file"             # as in preflight; default: any
    match = "/var/log/*"      # a glob for its path or peer; default: any
    action = "reopen"

Actions: "error" (refuse the dump), "close", "null" (replace it by /dev/null), "reopen" (close it for the dump, then
reopen it by path under the same number, for appending if it was written to), and "ignore" (leave it to criu).

Files that are mapped shared and writable have the same rules, with the kinds "shared memory" (in /dev/shm) and "shared
mapping" (elsewhere) and the actions "error" and "ignore".
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


in_force: list[Policy] = []
"""The rules of the current checkpoint."""


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
        """Return whether the rule matches this descriptor."""
        return fnmatchcase(finding.kind, self.kind) and fnmatchcase(finding.what, self.match)


class Reopening(NamedTuple):
    """A file that was closed for the dump and will be reopened."""

    fd: int
    path: str
    flags: int
    inheritable: bool
    offset: int

    def reopen(self) -> None:
        """Open it under its old number."""
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
    Return the rule that a table describes.

    Raises:
        ValueError: It has an unknown key or action.
    """
    unknown = sorted(set(values) - {"action", "kind", "match"})
    if unknown or values.get("action") not in ACTIONS:
        message = (
            f"{dict(values)} is no rule for descriptors: a rule has an action ({', '.join(ACTIONS)}), and may have a "
            "kind and a match"
        )
        raise ValueError(message)
    return Policy(**values)


def from_toml(path: str) -> list[Policy]:
    """
    Read the rules of a pyproject.toml, table tool.libcriu_py.fds.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not TOML, or has an invalid rule.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    with open(path, "rb") as file:
        tables = tomllib.load(file)
    return [policy(values) for values in tables.get("tool", {}).get("libcriu_py", {}).get("fds", [])]


def first_fit(rules: Iterable[Policy], finding: Finding) -> str:
    """Return the action for a descriptor; "" if no rule matches."""
    return next((rule.action for rule in rules if rule.fits(finding)), "")


def apply(action: str, finding: Finding) -> Reopening | None:
    """
    Close a descriptor as a rule says.

    Args:
        action: "close", "null" or "reopen".
        finding: The descriptor.

    Returns:
        How to reopen it; None for other actions.
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
        # The number stays in use, so that nothing else gets it before the file is reopened.
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, fd, inheritable=os.get_inheritable(fd))
        os.close(null)
    else:
        os.close(fd)
    return kept
