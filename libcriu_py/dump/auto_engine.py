"""The choice between the engines: native where the process is eligible, else criu where it may dump."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libcriu_py.dump.engine import SimulateEngine
from libcriu_py.dump.native_engine import NotEligible
from libcriu_py.errors import BinaryNotFound, UnsupportedFeature

if TYPE_CHECKING:
    from libcriu_py.dump.criu_engine import CriuEngine
    from libcriu_py.dump.engine import SnapshotEngine
    from libcriu_py.dump.native_engine import NativeEngine
    from libcriu_py.hooks.lifecycle import Outcome, Return


class AutoEngine(SimulateEngine):
    """The native engine, and criu's in its place if that refuses the process."""

    def __init__(self, native: NativeEngine, criu: CriuEngine) -> None:
        """Take both engines, for the same snapshot."""
        super().__init__()
        self._engine: SnapshotEngine = native
        native.departure = criu.departure = self.departure
        self._criu = criu
        self.ends_original = native.ends_original

    def prepare(self) -> None:
        """
        Prepare the first engine that can dump this process.

        Raises:
            UnsupportedFeature: Neither can.
        """
        try:
            self._engine.prepare()
        except NotEligible as refusal:
            self._turn_to_criu(refusal)

    def begin(self) -> None:
        """Begin what the engine needs that was prepared."""
        self._engine.begin()

    def abandon(self) -> None:
        """Release what was reserved."""
        self._engine.abandon()

    def dump(self) -> Return:
        """
        Dump this process by the engine that was prepared, or by criu if the native one refuses it now.

        Raises:
            UnsupportedFeature: Neither can.
        """
        try:
            return self._engine.dump()
        except NotEligible as refusal:
            self._turn_to_criu(refusal)
        return self._engine.dump()

    def await_release(self) -> None:
        """Wait until no other process works on the copy."""
        self._engine.await_release()

    def report_ready(self, outcome: Outcome) -> None:
        """Report that the after-hooks have run."""
        self._engine.report_ready(outcome)

    def _turn_to_criu(self, refusal: NotEligible) -> None:
        self._criu.why_not_native = refusal.reason
        try:
            self._engine.hand_to(self._criu)
            self._engine = self._criu
            self._criu.prepare()
        except (UnsupportedFeature, BinaryNotFound) as error:
            message = f"the native engine cannot dump this process, which {refusal.reason}; and criu cannot: {error}"
            raise UnsupportedFeature(message) from error
