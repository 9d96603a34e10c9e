"""A test that needs pandas."""

from __future__ import annotations

from shop import total  # type: ignore[import-not-found] # beside it


def test_total() -> None:
    """All amounts count."""
    assert total([{"amount": 1}, {"amount": 2}]) == 3  # noqa: S101 - pytest asks for it
