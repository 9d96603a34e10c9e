"""Descriptors with which something is to be done by rule, before anything else judges them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libcriu_py.errors import CheckpointError
from libcriu_py.findings import descriptors, policies
from libcriu_py.resources.base import Arrival, BuiltIn
from libcriu_py.settings import variable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Descriptors(BuiltIn):
    """
    The descriptors that rules are for.

    Args:
        rules: Tables with action, kind and match; see `libcriu_py.findings.policies`.
        config: A TOML file with further rules; default LIBCRIU_PY_CONFIG of the environment, else none.
    """

    def __init__(self, *, rules: Iterable[Mapping[str, Any]] = (), config: str | None = None) -> None:
        self._rules = [policies.policy(rule) for rule in rules]
        path = config or variable("LIBCRIU_PY_CONFIG")
        if path:
            self._rules += policies.from_toml(path)
        self._reopen: list[policies.Reopening] = []

    def let_go(self) -> None:
        """Do what the rules say."""
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

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Open again what is to be."""
        self.come_back()

    def come_back(self) -> None:
        """Open again what is to be."""
        waiting, self._reopen = self._reopen, []
        for kept in waiting:
            kept.reopen()
