"""
Find out which ways to dump and restore work on this machine, and how to fix the others.

    facts    what is there: criu, kernel, capabilities, namespaces, filters, mounts
    modes    for the native engine, and for criu in each privilege mode: a real dump and restore of a tiny process, or
             the first thing that blocks it, with the command that fixes it
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.diagnosis import facts, modes
from libcriu_py.privilege.mode import Obstacle, Privilege

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, Literal

    Way = Privilege | Literal["native"]

__all__ = ["Diagnosis", "Obstacle", "Report", "doctor"]

NATIVE: Final = "native"
MODES: tuple[Way, ...] = (NATIVE, Privilege.ROOT, Privilege.CAPABILITY, Privilege.ROOTLESS)


class Diagnosis(NamedTuple):
    """The result for one way."""

    mode: Way
    """A privilege mode of criu, or "native" for the engine that needs none."""
    obstacle: Obstacle | None
    """The first thing that blocks it; None if a process was dumped and restored."""
    dump: float | None = None
    """How long the start and dump of the tiny process took, in seconds."""
    restore: float | None = None
    """How long its restore took, in seconds."""

    @property
    def name(self) -> str:
        """The name of the mode."""
        return self.mode.value if isinstance(self.mode, Privilege) else self.mode

    @property
    def works(self) -> bool:
        """Whether a process was dumped and restored in this mode."""
        return self.obstacle is None

    def as_dict(self) -> dict[str, object]:
        """Return it as plain data, ready for JSON."""
        obstacle = None if self.obstacle is None else self.obstacle._asdict()
        return {"works": self.works, "obstacle": obstacle, "dump": self.dump, "restore": self.restore}


class Report(NamedTuple):
    """Everything that the doctor found."""

    facts: dict[str, dict[str, Any]]
    """Plain data, by section."""
    modes: tuple[Diagnosis, ...]
    notes: tuple[Obstacle, ...]
    """What slows restores down or affects some programs, but blocks no mode."""

    @property
    def works(self) -> tuple[Way, ...]:
        """The modes that work."""
        return tuple(diagnosis.mode for diagnosis in self.modes if diagnosis.works)

    def as_dict(self) -> dict[str, object]:
        """Return it as plain data, ready for JSON."""
        return {
            "modes": {diagnosis.name: diagnosis.as_dict() for diagnosis in self.modes},
            "notes": [note._asdict() for note in self.notes],
            "facts": self.facts,
        }


def doctor(wanted: Sequence[Privilege | str] = MODES) -> Report:
    """
    Find out which ways work for this user, in this place, and what blocks the others.

    This changes nothing: the tiny process that is dumped and restored in each mode lives in a temporary directory.

    Args:
        wanted: The modes to try, and "native".

    Returns:
        The results.

    Raises:
        ValueError: There is no such mode.
    """
    gathered = facts.gather()
    diagnoses = []
    for name in wanted:
        mode: Way = NATIVE if name == NATIVE else Privilege.of(name)
        obstacle = modes.native_obstacle() if mode == NATIVE else modes.find_obstacle(Privilege.of(mode), gathered)
        diagnoses.append(Diagnosis(mode, *modes.try_mode(mode)) if obstacle is None else Diagnosis(mode, obstacle))
    return Report(gathered, tuple(diagnoses), tuple(modes.notes(gathered)))


def can_run(obstacle: Obstacle) -> bool:
    """Return whether this user can run the command that removes an obstacle here and now."""
    from libcriu_py.privilege.obstacles import ROOT

    return obstacle.who == ROOT and os.geteuid() == 0 and bool(obstacle.command)
