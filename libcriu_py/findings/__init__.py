"""
Find everything in this process that would make a dump fail, before criu starts.

criu stops at the first thing that it cannot dump, and describes it in the terms of its own code. Preflight looks at
every open descriptor, mapping, lock and child, and gives each a verdict and advice.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, NoReturn

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

    found = _findings(options or {})
    told = (*temporary.findings(), *fork_advice.findings(), *unrenewed.findings(found))
    return Report((*found, *told))


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

    if variable("LIBCRIU_PY_PREFLIGHT") == "off":
        return
    # Temporary files are no problem for criu, and finding them takes a look at every object.
    problems = Report(_findings(options) if by_criu else tuple(shared_mappings.findings())).problems
    if problems:
        raise PreflightError(problems)


def is_report_wanted() -> bool:
    """Return whether a checkpoint is to print what it would have to save, and to end the process."""
    wanted = variable("LIBCRIU_PY_PREFLIGHT") or ""
    return wanted == "report" or os.path.isabs(wanted)


def show_and_end(options: Mapping[str, object], why_not_native: str | None) -> NoReturn:
    """
    Print what a dump by criu would have to save, and end this process.

    Args:
        options: The dump's options.
        why_not_native: What the native engine says of the process; None if it was not asked.
    """
    why = f"not native, since this process {why_not_native}" if why_not_native else ""
    _show_and_end((*preflight(options).findings, Finding("engine", "criu", Verdict.FINE, why)))


def show_native_and_end(options: Mapping[str, object]) -> NoReturn:
    """
    Print what is in a process that the native engine can dump, and end it.

    Args:
        options: The dump's options.
    """
    from libcriu_py.findings import shared_mappings

    shared = set(shared_mappings.findings())
    found = [one for one in preflight(options).findings if not one.is_problem or one in shared]
    _show_and_end((*found, Finding("engine", "native", Verdict.FINE, "a dump needs neither criu nor a right")))


def _findings(options: Mapping[str, object]) -> tuple[Finding, ...]:
    """Look at what criu will dump, and at what copies must not share."""
    from libcriu_py.findings import descriptors, process, shared_mappings

    return (*descriptors.findings(options), *process.findings(options), *shared_mappings.findings())


def _show_and_end(findings: Sequence[Finding]) -> NoReturn:
    import sys

    path = variable("LIBCRIU_PY_PREFLIGHT") or ""
    if os.path.isabs(path):
        import json

        with open(path, "w", encoding="ascii") as file:
            json.dump([finding.as_dict() for finding in findings], file)
    else:
        sys.stdout.write(table(findings))
    sys.stdout.flush()
    os._exit(1 if Report(tuple(findings)).problems else 0)


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
