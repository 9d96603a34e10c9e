"""
What this machine allows, and what to do about the rest.

    facts    what is there: criu, kernel, capabilities, namespaces, filters, mounts
    modes    for each way to be allowed: a real dump and restore of a tiny process, or the first thing
             that stops it with the command that puts it right
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.diagnosis import facts, modes
from libcriu_py.privilege.mode import Obstacle, Privilege

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Diagnosis", "Obstacle", "Report", "doctor"]

MODES = (Privilege.ROOT, Privilege.CAPABILITY, Privilege.ROOTLESS)


class Diagnosis(NamedTuple):
    """What was found out about one mode."""

    mode: Privilege
    obstacle: Obstacle | None
    """The first thing that stops it; None when a process was dumped and restored."""
    dump: float | None = None
    """How long the start and dump of the tiny process took, in seconds."""
    restore: float | None = None
    """How long its restore took, in seconds."""

    @property
    def works(self) -> bool:
        """Whether a process was dumped and restored in this mode."""
        return self.obstacle is None

    def as_dict(self) -> dict[str, object]:
        """Return it as plain data, ready for JSON."""
        obstacle = None if self.obstacle is None else self.obstacle._asdict()
        return {"works": self.works, "obstacle": obstacle, "dump": self.dump, "restore": self.restore}


class Report(NamedTuple):
    """All that the doctor found."""

    facts: dict[str, dict[str, Any]]
    """By section, plain data."""
    modes: tuple[Diagnosis, ...]
    notes: tuple[Obstacle, ...]
    """What makes it slower or stops some programs, but no mode."""

    @property
    def works(self) -> tuple[Privilege, ...]:
        """The modes that work."""
        return tuple(diagnosis.mode for diagnosis in self.modes if diagnosis.works)

    def as_dict(self) -> dict[str, object]:
        """Return it as plain data, ready for JSON."""
        return {
            "modes": {diagnosis.mode.value: diagnosis.as_dict() for diagnosis in self.modes},
            "notes": [note._asdict() for note in self.notes],
            "facts": self.facts,
        }


def doctor(wanted: Sequence[Privilege | str] = MODES) -> Report:
    """
    Find out which modes work for this user, in this place, and what stops the others.

    Nothing is changed: the tiny process that is dumped and restored for each mode lives in a temporary
    directory.

    Args:
        wanted: The modes to try.

    Returns:
        What was found.

    Raises:
        ValueError: There is no such mode.
    """
    gathered = facts.gather()
    diagnoses = []
    for mode in map(Privilege.of, wanted):
        obstacle = modes.find_obstacle(mode, gathered)
        proof = None if obstacle is not None else modes.prove(mode)
        if proof is None:
            diagnoses.append(Diagnosis(mode, obstacle))
        else:
            diagnoses.append(Diagnosis(mode, proof.obstacle, proof.dump, proof.restore))
    return Report(gathered, tuple(diagnoses), tuple(modes.notes(gathered)))


def can_run(obstacle: Obstacle) -> bool:
    """Return whether the command that removes an obstacle is one that this user can run here and now."""
    from libcriu_py.privilege.obstacles import ROOT

    return obstacle.who == ROOT and os.geteuid() == 0 and bool(obstacle.command)
