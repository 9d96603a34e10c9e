"""Fixtures of the tests that need neither root nor criu."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from libcriu_py.hooks.registry import registry

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start programs without `make coverage` measuring them, where it counts what they import."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture
def fresh_registry() -> Iterator[None]:
    """Run a test with a registry of hooks without entries."""
    kept = registry._entries
    registry._entries = []
    yield
    registry._entries = kept
