"""Descriptors for which the user wrote rules; applied before anything else looks at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libcriu_py.errors import CheckpointError
from libcriu_py.findings import descriptors, policies
from libcriu_py.resources.base import BuiltIn
from libcriu_py.settings import variable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Descriptors(BuiltIn):
    """
    Apply the rules for open descriptors.

    Args:
        rules: Tables with action, kind and match; see `libcriu_py.findings.policies`.
        config: A TOML file with further rules; the default is LIBCRIU_PY_CONFIG, else none.
    """

    def __init__(self, *, rules: Iterable[Mapping[str, Any]] = (), config: str | None = None) -> None:
        self._rules = [policies.policy(rule) for rule in rules]
        path = config or variable("LIBCRIU_PY_CONFIG")
        if path:
            self._rules += policies.from_toml(path)
        self._reopen: list[policies.Reopening] = []

    def before_dump(self) -> None:
        """
        Apply the rules.

        Raises:
            CheckpointError: A rule with the action "error" fits a descriptor.
        """
        policies.in_force[:] = self._rules
        if not self._rules:
            return
        refused = []
        for finding in list(descriptors.findings({})):
            action = policies.first_fit(self._rules, finding)
            if finding.fd is None or finding.fd <= 2 or action in {"", "ignore"}:
                continue
            if action == "error":
                refused.append(f"{finding.kind} {finding.what} (fd {finding.fd})")
                continue
            kept = policies.apply(action, finding)
            if kept is not None:
                self._reopen.append(kept)
        if refused:
            message = f"a rule refuses a dump with {'; '.join(refused)}"
            raise CheckpointError(message)

    def before_dump_last(self) -> bool:
        """Return whether there is something to reopen."""
        return bool(self._reopen)

    def in_original(self) -> None:
        """Reopen what rules say to reopen."""
        waiting, self._reopen = self._reopen, []
        for kept in waiting:
            kept.reopen()
