"""
Find everything in this process that would make a dump fail, before criu starts.

criu stops at the first thing that it cannot dump, and describes it in the terms of its own code. Preflight looks at
every open descriptor, mapping, lock and child, and gives each a verdict and advice.
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
        problems: Everything that was found, not only the first.
    """

    def __init__(self, problems: Sequence[Finding]) -> None:
        self.problems = tuple(problems)
        lines = [f"\n  {number}. {problem}" for number, problem in enumerate(self.problems, 1)]
        super().__init__(f"this process cannot be dumped as it is:{''.join(lines)}")


class Report(NamedTuple):
    """What preflight found."""

    findings: tuple[Finding, ...]
    """Everything, including what is fine."""

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Return what would make a dump fail."""
        return tuple(finding for finding in self.findings if finding.is_problem)


def preflight(options: Mapping[str, object] | None = None) -> Report:
    """
    Look at everything in this process that a dump has to save, and change nothing.

    Args:
        options: The options of the dump, by the names of `DumpOptions`; some allow what is otherwise impossible.

    Returns:
        The report.
    """
    from libcriu_py.findings import fork_advice, temporary, unrenewed

    told = (*temporary.findings(), *fork_advice.findings(), *unrenewed.findings())
    return Report((*_findings(options or {}), *told))


def refuse(options: Mapping[str, object], *, by_criu: bool) -> None:
    """
    Refuse a dump that would fail, or whose copies would share memory; every checkpoint calls this.

    Args:
        options: The dump's options.
        by_criu: Whether criu dumps the process; the native engine refuses by itself what it cannot dump.

    Raises:
        PreflightError: Something cannot be dumped.
    """
    from libcriu_py.findings import shared_mappings

    report_if_asked(options)
    if variable("LIBCRIU_PY_PREFLIGHT") == "off":
        return
    # Temporary files are no problem for criu, and finding them takes a look at every object.
    problems = Report(_findings(options) if by_criu else tuple(shared_mappings.findings())).problems
    if problems:
        raise PreflightError(problems)


def report_if_asked(options: Mapping[str, object]) -> None:
    """Print what a dump by criu would have to save, and end this process, where the variable asks for that."""
    if variable("LIBCRIU_PY_PREFLIGHT") == "report":
        _show_and_end(preflight(options))


def _findings(options: Mapping[str, object]) -> tuple[Finding, ...]:
    """Look at what criu will dump, and at what copies must not share."""
    from libcriu_py.findings import descriptors, process, shared_mappings

    return (*descriptors.findings(options), *process.findings(options), *shared_mappings.findings())


def _show_and_end(report: Report) -> None:
    """Print the report, and end the process."""
    import sys

    sys.stdout.write(table(report.findings))
    sys.stdout.flush()
    os._exit(1 if report.problems else 0)


def table(findings: Iterable[Finding]) -> str:
    """Format findings for people, problems last, where they are seen first."""
    lines = []
    for finding in sorted(findings, key=lambda item: (item.is_problem, item.fd if item.fd is not None else 1 << 30)):
        number = "" if finding.fd is None else f"fd {finding.fd}"
        lines.append(f"{finding.verdict.value:<11} {number:<6} {finding.kind}: {finding.what}")
        if finding.advice:
            lines.append(f"{'':<19}{finding.advice}")
        lines += [f"{'':<19}opened at {frame}" for frame in finding.stack]
    return "".join(f"{line}\n" for line in lines)
