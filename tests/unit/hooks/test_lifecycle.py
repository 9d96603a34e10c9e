"""The lifecycle without CRIU: outcomes, undo, and the three forms of a checkpoint."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING

import pytest

from libcriu_py import (
    HookError,
    Outcome,
    after_restore,
    before_checkpoint,
    checkpoint,
    checkpoint_here,
    register,
    unregister,
)

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("fresh_registry")


class Connection:
    """A resource with a state, one of whose calls may fail."""

    def __init__(self, fails: str = "") -> None:
        self.open = True
        self.fails = fails

    def before_checkpoint(self) -> None:
        """Close it."""
        if self.fails == "before":
            message = "cannot close"
            raise OSError(message)
        self.open = False

    def after_restore(self) -> None:
        """Open it."""
        if self.fails == "after":
            message = "cannot open"
            raise OSError(message)
        self.open = True


def test_simulated_outcome() -> None:
    """A rehearsal goes on in the same process, and says so."""
    snap = checkpoint(engine="simulate", dir="unused")
    outcomes = [snap.outcome]
    with snap:
        outcomes.append(snap.outcome)
    assert [*outcomes, snap.outcome] == [None, None, Outcome.SIMULATED]
    assert (snap.restored, snap.downtime, snap.request, snap.stats) == (False, None, None, {})


def test_exception_in_the_block_means_no_checkpoint() -> None:
    """A failed warm-up is not saved, and no hook runs."""
    ran: list[str] = []
    before_checkpoint(ran.append, "hook")
    with pytest.raises(ZeroDivisionError), checkpoint(engine="simulate") as snap:
        raise ZeroDivisionError
    assert ran == []
    assert snap.outcome is None


def test_failed_before_hook_undoes_those_that_ran() -> None:
    """What was torn down before the failure is put right; what was not is left alone."""
    below, failing, above = Connection(), Connection("before"), Connection()
    for connection in (below, failing, above):
        register(connection)
    with pytest.raises(HookError, match=r"before-checkpoint hook .*Connection failed: OSError: cannot close") as raised:
        checkpoint_here(engine="simulate")
    assert isinstance(raised.value.__cause__, OSError)
    assert [below.open, failing.open, above.open] == [True, True, True]


def test_failures_of_hook_and_undo_are_raised_together() -> None:
    """Several causes are one ExceptionGroup."""
    failing, also_failing = register(Connection("before")), register(Connection("after"))
    with pytest.raises(ExceptionGroup) as raised:
        checkpoint_here(engine="simulate")
    assert [str(error).rpartition(": ")[2] for error in raised.value.exceptions] == ["cannot close", "cannot open"]
    assert failing.open
    assert not also_failing.open


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupted_before_hook_undoes_those_that_ran(kind: type[BaseException]) -> None:
    """Ctrl-C in a hook leaves nothing torn down, and is raised as itself, the failures of undoing as its cause."""
    above = register(Connection())
    failing = register(Connection("after"))

    def interrupted() -> None:
        assert not above.open
        raise kind

    unregister(above)
    before_checkpoint(interrupted)
    register(above)
    register(failing)
    with pytest.raises(kind) as raised:
        checkpoint_here(engine="simulate")
    assert above.open
    assert raised.value.__cause__ is not None
    assert "so did undoing others" in str(raised.value.__cause__)
    failing.fails = ""
    unregister(interrupted)
    checkpoint_here(engine="simulate")
    assert failing.open


def test_interrupted_after_hook_keeps_no_other_from_running() -> None:
    """Neither does it in an after-hook."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    after_restore(interrupted)
    last = register(Connection())
    with pytest.raises(KeyboardInterrupt):
        checkpoint_here(engine="simulate")
    assert last.open


def test_all_after_hooks_run_whatever_fails() -> None:
    """One after-hook that fails does not keep the others from running."""
    first, failing, last = register(Connection()), register(Connection("after")), register(Connection())
    with pytest.raises(HookError, match="cannot open"):
        checkpoint_here(engine="simulate")
    assert [first.open, failing.open, last.open] == [True, False, True]


def test_checkpoint_inside_a_hook_is_refused() -> None:
    """One checkpoint at a time."""
    before_checkpoint(lambda: checkpoint_here(engine="simulate"))
    with pytest.raises(HookError, match="already taking a checkpoint"):
        checkpoint_here(engine="simulate")


def test_async_form_awaits_hooks_in_the_running_loop() -> None:
    """`async with` runs async hooks where their objects belong."""
    loops: list[object] = []

    @after_restore
    async def note() -> None:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())

    async def main() -> object:
        async with checkpoint(engine="simulate") as snap:
            pass
        assert snap.outcome is Outcome.SIMULATED
        return asyncio.get_running_loop()

    assert loops == [asyncio.run(main())] if loops else asyncio.run(main()) in loops
    assert callable(note)


def test_async_hook_in_plain_form_inside_a_loop_is_an_error() -> None:
    """A plain `with` cannot wait for an async hook in a running loop, and says what can."""

    @before_checkpoint
    async def hook() -> None:
        raise AssertionError

    async def main() -> None:
        with checkpoint(engine="simulate"):
            pass

    with pytest.raises(HookError, match="use `async with`"):
        asyncio.run(main())
    assert callable(hook)


def test_decorator_returns_the_result_of_the_warm_up() -> None:
    """The decorated function is the block, plain or async, any number of times."""

    @checkpoint(engine="simulate")
    def double(number: int) -> int:
        return 2 * number

    @checkpoint(engine="simulate")
    async def treble(number: int) -> int:
        return 3 * number

    assert [double(1), double(2)] == [2, 4]

    async def main() -> int:
        return await treble(3)

    assert asyncio.run(main()) == 9
    assert double.__name__ == "double"


def test_checkpoint_is_used_once() -> None:
    """A second `with` on the same object is an error."""
    snap = checkpoint(engine="simulate")
    with snap:
        pass
    with pytest.raises(RuntimeError, match="once"), snap:
        pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"then": "stop"}, "then must be"),
        ({"engine": "magic"}, "engine must be"),
        ({"engine": "criu"}, "no directory for the snapshot"),
    ],
)
def test_wrong_arguments(settings: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments are checked when the checkpoint is made, before the warm-up."""
    monkeypatch.delenv("LIBCRIU_PY_SNAPSHOT", raising=False)
    with pytest.raises(ValueError, match=message):
        checkpoint(**settings)  # type: ignore[arg-type]


def test_directory_of_the_environment_goes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """LIBCRIU_PY_SNAPSHOT overrides the directory that a program names."""
    monkeypatch.setenv("LIBCRIU_PY_SNAPSHOT", str(tmp_path / "other"))
    snap = checkpoint("named", engine="criu")
    assert snap._engine._path == str(tmp_path / "other")  # type: ignore[attr-defined]


def test_settings_of_the_environment_go_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the original does, the engine, the time of hooks and criu's options can be said from outside."""
    monkeypatch.setenv("LIBCRIU_PY_THEN", "continue")
    monkeypatch.setenv("LIBCRIU_PY_HOOK_LIMIT", "2.5")
    monkeypatch.setenv("LIBCRIU_PY_OPTIONS", '{"tcp_close": true}')
    snap = checkpoint(tmp_path, hook_limit=1, engine="criu", options={"tcp_close": False, "log_level": 1})
    assert snap._settings["hook_limit"] == 2.5
    assert snap._engine.ends_original is False
    assert snap._engine._options == {"tcp_close": True, "log_level": 1}  # type: ignore[attr-defined]
    monkeypatch.setenv("LIBCRIU_PY_ENGINE", "simulate")
    with checkpoint(tmp_path, engine="criu") as snap:
        pass
    assert snap.outcome is Outcome.SIMULATED
    monkeypatch.setenv("LIBCRIU_PY_ENGINE", "native")
    with checkpoint(tmp_path, engine="simulate") as snap:
        pass
    assert snap.outcome is Outcome.SIMULATED  # a program that rehearses is not dumped because of a variable


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("THEN", "stop"),
        ("ENGINE", "magic"),
        ("IF_EXISTS", "yes"),
        ("IF_IMPOSSIBLE", "yes"),
        ("HOOK_LIMIT", "soon"),
        ("HOOK_LIMIT", "-1"),
        ("OPTIONS", "tcp_close"),
        ("OPTIONS", "[1]"),
    ],
)
def test_wrong_settings_of_the_environment(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be is an error, before the warm-up."""
    monkeypatch.setenv(f"LIBCRIU_PY_{variable}", value)
    with pytest.raises(ValueError, match=re.escape(repr(value))):
        checkpoint("snap")


def test_short_form_against_its_long_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """`replace=True` together with another `if_exists` is an error, unless a variable decides."""
    with pytest.raises(ValueError, match="short for"):
        checkpoint("snap", replace=True, if_exists="continue")
    monkeypatch.setenv("LIBCRIU_PY_IF_EXISTS", "error")
    assert checkpoint("snap", replace=True)._settings["if_exists"] == "error"
