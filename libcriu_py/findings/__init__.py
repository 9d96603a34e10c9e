"""
What in this process would keep it from being dumped, found before criu is asked, and all at once.

criu stops at the first thing that it cannot dump, and names it in the terms of its own code. Here every open
descriptor, mapping, lock and child is looked at, and each gets a verdict and an advice.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.errors import CheckpointError
from libcriu_py.findings.finding import Finding, Verdict
from libcriu_py.settings import variable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Finding", "PreflightError", "Report", "Verdict", "preflight", "refuse"]


class PreflightError(CheckpointError):
    """
    Something in the process cannot be dumped.

    Attributes:
        problems: Everything that was found, not the first only.
    """

    def __init__(self, problems: Sequence[Finding]) -> None:
        self.problems = tuple(problems)
        lines = [f"\n  {number}. {problem}" for number, problem in enumerate(self.problems, 1)]
        super().__init__(f"this process cannot be dumped as it is:{''.join(lines)}")


class Report(NamedTuple):
    """
    What was found.

    Attributes:
        findings: Everything, what is fine included.
    """

    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Return what would make a dump fail."""
        return tuple(finding for finding in self.findings if finding.is_problem)


def preflight(options: Mapping[str, object] | None = None) -> Report:
    """
    Look at everything in this process that a dump has to save.

    Args:
        options: The options that the dump will have, by the names of `DumpOptions`: some make things possible.

    Returns:
        The report; nothing is changed.
    """
    from libcriu_py.findings import temporary

    return Report((*_findings(options or {}), *temporary.findings()))


def refuse(options: Mapping[str, object]) -> None:
    """
    Refuse a dump that would fail; every checkpoint does this.

    Args:
        options: The dump's options.

    Raises:
        PreflightError: Something cannot be dumped.
    """
    asked = variable("LIBCRIU_PY_PREFLIGHT")
    if asked == "off":
        return
    if asked == "report":
        _show_and_end(preflight(options))
    # Without what is no problem, and takes a look at every object.
    problems = Report(_findings(options)).problems
    if problems:
        raise PreflightError(problems)


def _findings(options: Mapping[str, object]) -> tuple[Finding, ...]:
    """Look at what criu will look at."""
    from libcriu_py.findings import descriptors, surroundings

    return (*descriptors.findings(options), *surroundings.findings(options))


def _show_and_end(report: Report) -> None:
    """End here: the report is all that was wanted."""
    import sys

    sys.stdout.write(table(report.findings))
    sys.stdout.flush()
    os._exit(1 if report.problems else 0)


def table(findings: Iterable[Finding]) -> str:
    """Write findings for people, problems last, where they are seen."""
    lines = []
    for finding in sorted(findings, key=lambda item: (item.is_problem, item.fd if item.fd is not None else 1 << 30)):
        number = "" if finding.fd is None else f"fd {finding.fd}"
        lines.append(f"{finding.verdict.value:<11} {number:<6} {finding.kind}: {finding.what}")
        if finding.advice:
            lines.append(f"{'':<19}{finding.advice}")
        lines += [f"{'':<19}opened at {frame}" for frame in finding.stack]
    return "".join(f"{line}\n" for line in lines)
