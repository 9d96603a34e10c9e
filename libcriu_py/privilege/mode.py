"""The privilege modes, and what may stand in the way of one."""

from __future__ import annotations

import enum
import os
from typing import NamedTuple

from libcriu_py.linux.files import read_small
from libcriu_py.settings import variable


class Privilege(enum.Enum):
    """How dump and restore are allowed."""

    AUTO = "auto"
    """The first of the others that works."""
    ROOT = "root"
    """uid 0 with capabilities."""
    CAPABILITY = "capability"
    """Yield a criu with file capabilities."""
    ROOTLESS = "rootless"
    """Namespaces of one's own."""

    @classmethod
    def of(cls, mode: Privilege | str | None) -> Privilege:
        """
        Take a mode by name; None means LIBCRIU_PY_MODE, else AUTO.

        Raises:
            ValueError: There is no such mode.
        """
        if isinstance(mode, cls):
            return mode
        name = mode or variable("LIBCRIU_PY_MODE") or "auto"
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(member.value for member in cls)
            message = f"there is no mode {name!r}; the modes are {known}"
            raise ValueError(message) from None


class Obstacle(NamedTuple):
    """Why a mode does not work, and what puts that right."""

    text: str
    """One sentence without its full stop."""
    command: str = ""
    """What to type; empty where nothing can be done on this machine."""
    who: str = ""
    """Who has to type it."""

    def __str__(self) -> str:
        """Return the sentence and, in parentheses, the command."""
        return f"{self.text} ({self.who}: {self.command})" if self.command else self.text


def groups_in(mode: Privilege) -> list[int]:
    """Return the supplementary groups of this process as a process in this mode's namespace sees them."""
    groups = os.getgroups()
    if mode is Privilege.ROOTLESS and variable("LIBCRIU_PY_SERVICE") is None:
        # Only one's own group is mapped (user_namespaces(7)).
        unmapped = int(read_small("/proc/sys/kernel/overflowgid") or 65534)  # the kernel's default
        groups = [group if group == os.getegid() else unmapped for group in groups]
    return sorted(groups)
