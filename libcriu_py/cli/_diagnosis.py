"""Print the doctor's report for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from libcriu_py.cli._arguments import count

if TYPE_CHECKING:
    from libcriu_py.diagnosis import Diagnosis, Report
    from libcriu_py.privilege.mode import Obstacle

_PIPE_WIDTH = 1000


def show(report: Report) -> None:
    """Print the modes, the notes and the most important facts."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    for diagnosis in report.modes:
        _mode(console, diagnosis)
    for note in report.notes:
        _obstacle(console, ("note        ", "yellow"), note)
    console.print()
    for name, text in _lines(report.facts):
        console.print(Text.assemble((f"{name:<12}", "bold"), text))
    console.print()
    console.print(Text.assemble((f"{'next':<12}", "bold"), _next(report)))


def _next(report: Report) -> str:
    """Return the command to type next: one that makes something work, or the first that uses it."""
    if report.works:
        return "libcriu-py snapshot PROGRAM"
    fixes = (one.obstacle for one in report.modes if one.obstacle is not None and one.obstacle.command)
    return next((f"{fix.who}: {fix.command}" for fix in fixes), "see docs/unprivileged.md")


def _mode(console: Console, diagnosis: Diagnosis) -> None:
    name = (f"{diagnosis.name:<12}", "bold")
    if diagnosis.obstacle is not None:
        _obstacle(console, name, diagnosis.obstacle)
        return
    restore = 0.0 if diagnosis.restore is None else diagnosis.restore * 1000
    console.print(Text.assemble(name, ("works", "green"), f" (a process was restored in {restore:.0f} ms)"))


def _obstacle(console: Console, name: tuple[str, str], obstacle: Obstacle) -> None:
    console.print(Text.assemble(name, obstacle.text))
    if obstacle.command:
        console.print(Text.assemble(f"{'':<12}{obstacle.who}: ", (obstacle.command, "cyan")))


def _lines(facts: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    criu, process, spaces = facts["criu"], facts["process"], facts["namespaces"]
    kind = {True: "static", False: "with shared libraries", None: "of unknown kind"}[criu["static"]]
    if criu["start"] is not None:
        kind += f", starts in {criu['start'] * 1000:.1f} ms"
    rights = "all" if not process["missing_from_bounding"] else f"without {process['missing_from_bounding']}"
    rootless = "allowed" if spaces["rootless_works"] else f"{spaces['rootless_stage']}: {spaces['rootless_error']}"
    place = [name for name in ("container", "chroot", "in_user_namespace") if spaces[name]]
    lines = [
        ("criu", f"{criu['version']}, {criu['path']}, {kind}" if criu["path"] else "none"),
        ("kernel", f"{facts['kernel']['release']} {facts['kernel']['arch']}"),
        (
            "user",
            f"uid {process['uid']}, gid {process['gid']}, groups {','.join(map(str, process['groups'])) or 'none'}",
        ),
        ("effective", _effective(process)),
        ("bounding set", f" {rights}"),
        ("namespaces", rootless + (f" (this is a {', a '.join(place)})".replace("_", " ") if place else "")),
        ("filters", f"seccomp {process['seccomp']}, NO_NEW_PRIVS {'set' if process['no_new_privs'] else 'not set'}"),
        ("yama", facts["security"]["yama"] or "not present"),
        ("/proc", f"hidepid {facts['proc']['hidepid']}, {count(len(facts['proc']['covered']), 'part')} covered"),
        ("cache", f"{facts['storage']['cache']}{'' if facts['storage']['cache_on_tmpfs'] else ' (not on a tmpfs)'}"),
    ]
    return [(name, text if len(text) < 200 else text[:197] + "...") for name, text in lines]


def _effective(process: dict[str, Any]) -> str:
    """Return the capabilities in effect, in words."""
    if process["effective"] == process["bounding"]:
        return "all of the bounding set"
    return process["effective"] or "no capabilities"
