"""Privilege modes, and obstacles to them."""

from __future__ import annotations

import enum
import os
from typing import NamedTuple

from libcriu_py.linux.files import read_small
from libcriu_py.settings import variable


class Privilege(enum.Enum):
    """A privilege mode: what allows criu to dump and restore."""

    AUTO = "auto"
    """The first mode that works."""
    ROOT = "root"
    """uid 0 with capabilities."""
    CAPABILITY = "capability"
    """A criu with file capabilities."""
    ROOTLESS = "rootless"
    """New user, pid and mount namespaces."""

    @classmethod
    def of(cls, mode: Privilege | str | None) -> Privilege:
        """
        Return the mode of a name; None stands for LIBCRIU_PY_MODE, or AUTO if that is not set.

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
    """Why a mode does not work, and how to fix that."""

    text: str
    """The reason: a sentence without a full stop."""
    command: str = ""
    """The command that fixes it; empty if nothing on this machine does."""
    who: str = ""
    """Who must run the command."""

    def __str__(self) -> str:
        """Return the reason and, in parentheses, the command."""
        return f"{self.text} ({self.who}: {self.command})" if self.command else self.text


def groups_in(mode: Privilege) -> list[int]:
    """Return the supplementary groups of this process as a process in this mode's namespace sees them."""
    groups = os.getgroups()
    if mode is Privilege.ROOTLESS and variable("LIBCRIU_PY_SERVICE") is None:
        # Only this process's group is mapped (user_namespaces(7)).
        unmapped = int(read_small("/proc/sys/kernel/overflowgid") or 65534)  # the kernel's default
        groups = [group if group == os.getegid() else unmapped for group in groups]
    return sorted(groups)
