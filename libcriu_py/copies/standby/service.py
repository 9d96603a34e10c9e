"""
What a standby pool does: keep copies in stock, and give them to launchers that ask.

One thread waits for all that can happen; restores run in another.
"""

from __future__ import annotations

import os
import selectors
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.copies.standby.door import Client, Door, Surroundings, own_surroundings, socket_of
from libcriu_py.copies.standby.pages import Pages
from libcriu_py.copies.standby.shelf import Bounds, Shelf
from libcriu_py.criu.find import find_criu
from libcriu_py.errors import CriuError
from libcriu_py.linux.mounts import Watch, mounts_of
from libcriu_py.privilege.decision import decide
from libcriu_py.snapshot.manifest import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from libcriu_py.copies.standby.copy import Launcher, WaitingCopy
    from libcriu_py.privilege.mode import Privilege

_TICK = 1.0
"""Seconds between two looks at the snapshot, the mounts and the memory."""

_PATIENCE = 0.2
"""Seconds that the launchers of copies in use may take to end, when the pool does."""


class Stock(NamedTuple):
    """What a pool has, and has given."""

    waiting: int = 0
    """Copies that wait."""
    complete: bool = False
    """Whether these are as many as the bounds allow."""
    served: int = 0
    """Copies that launchers have been given."""


class Served(NamedTuple):
    """A snapshot as it is served: one state of its manifest."""

    snapshot: Snapshot
    mode: Privilege
    modes: frozenset[str]
    """What launchers may ask for to be restored in that mode."""
    surroundings: Surroundings


def open_served(path: str, wanted: Privilege | str | None) -> Served:
    """
    Open a snapshot, and decide how its copies are restored.

    Raises:
        CriuError: It cannot be used here.
    """
    snapshot = Snapshot.open(path)
    criu = find_criu()
    mode = decide(wanted, criu=criu, launch=snapshot.launch).mode
    modes = {mode.value}
    if wanted is None or decide("auto", criu=criu, launch=snapshot.launch).mode is mode:
        modes.add("auto")
    return Served(snapshot, mode, frozenset(modes), own_surroundings(mode.value))


class Service:
    """
    The loop of a standby pool.

    Thread safety: `stop` may be called from anywhere; all else is for one thread.
    """

    def __init__(
        self,
        path: str,
        bounds: Bounds,
        *,
        mode: Privilege | str | None,
        allow: Collection[str],
        report: Callable[[str], None],
        on_change: Callable[[Stock], None],
    ) -> None:
        """
        Listen.

        Args:
            path: The snapshot's directory.
            bounds: How many copies wait.
            mode: How restores are allowed.
            allow: In what launchers may differ.
            report: Is told what goes wrong later.
            on_change: Is told what there is, whenever that may have changed.

        Raises:
            CriuError: The snapshot cannot be used here, or is served already.
        """
        self._path = path
        self._wanted = mode
        self._allow = allow
        self._report = report
        self._on_change = on_change
        self._stopping = False
        self._said = ""
        self._had_copies = False
        self._given = 0
        self._welcome: set[bytes] = set()  # the description that was last found to fit
        self._looked = time.monotonic()
        self._clients: set[Client] = set()
        self._launchers: set[Launcher] = set()
        self._served = open_served(path, mode)
        self._door: Door | None = Door(socket_of(path))
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake_up = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._mounts = Watch()
        self._shelf = Shelf(bounds, self._wake)
        self._pages = Pages()
        self._selector.register(self._woken, selectors.EVENT_READ, self._hear)
        self._selector.register(self._door, selectors.EVENT_READ, self._accept)

    # ---- the loop ----------------------------------------------------------

    def run(self) -> None:
        """
        Serve until `stop` is called.

        Raises:
            CriuError: Not one copy could be restored.
        """
        try:
            while not self._stopping:
                self._step()
        finally:
            self._close()

    def stop(self) -> None:
        """Let `run` return."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_up, b"!")
        except OSError:
            return  # it is going to wake up anyway, or has ended

    def _hear(self) -> None:
        os.read(self._woken, 4096)
        copy = self._shelf.take_in()
        if copy is not None:
            self._had_copies = True
            self._watch(copy.launcher)
            self._selector.register(copy, selectors.EVENT_READ, partial(self._drop, copy))
            for pages in self._pages.files:
                copy.fetch(pages)
            self._trim()
        elif self._shelf.error is not None:
            if not self._had_copies:
                raise self._shelf.error
            self._complain(self._shelf.error)

    def _step(self) -> None:
        now = time.monotonic()
        if now - self._looked >= _TICK:
            self._looked = now
            self._look()
        pause = self._shelf.fill(self._served.snapshot, self._served.mode) if self._door is not None else None
        self._tell()
        pauses = [_TICK, *(left for left in (pause, self._pages.left()) if left is not None)]
        for key, _ in self._selector.select(max(0.0, min(pauses))):
            key.data()
        for pages in self._pages.look():
            for copy in self._shelf.copies:
                copy.fetch(pages)

    def _tell(self) -> None:
        waiting = len(self._shelf.copies)
        self._on_change(Stock(waiting, self._door is not None and self._shelf.is_complete, self._given))

    def _complain(self, error: Exception | str) -> None:
        """Report a problem once, however often it is met."""
        if str(error) != self._said:
            self._said = str(error)
            self._report(self._said)

    def _close(self) -> None:
        """End the copies that wait; those in use go on."""
        self._close_door()
        used = self._launchers - {copy.launcher for copy in self._shelf.copies}
        self._shelf.close()
        # The program of some may have ended just now.
        deadline = time.monotonic() + _PATIENCE
        for launcher in used:
            launcher.leave(max(0.0, deadline - time.monotonic()))
        self._selector.close()
        self._mounts.close()
        self._pages.close()
        wake_up, self._wake_up = self._wake_up, -1
        os.close(self._woken)
        os.close(wake_up)
        self._tell()

    # ---- copies ------------------------------------------------------------

    def _watch(self, launcher: Launcher) -> None:
        self._launchers.add(launcher)
        self._selector.register(launcher, selectors.EVENT_READ, partial(self._bury, launcher))

    def _bury(self, launcher: Launcher) -> None:
        self._selector.unregister(launcher)
        self._launchers.remove(launcher)
        launcher.reap()

    def _drop(self, copy: WaitingCopy) -> None:
        if copy in self._shelf.copies:  # an event may tell of one that is gone since
            self._selector.unregister(copy)
            self._shelf.remove(copy)

    def _compare_mounts(self) -> None:
        """End copies that do not see what has been mounted since, as those in namespaces may not."""
        if self._mounts.have_changed():
            ours = mounts_of(os.getpid())
            for copy in list(self._shelf.copies):
                if mounts_of(copy.pid) != ours:
                    self._drop(copy)

    def _drop_all(self) -> None:
        for copy in list(self._shelf.copies):
            self._drop(copy)

    def _trim(self) -> None:
        for copy in self._shelf.trim():
            self._drop(copy)
        if self._shelf.excess is not None:
            self._complain(self._shelf.excess)

    # ---- launchers ---------------------------------------------------------

    def _accept(self) -> None:
        client = self._door.accept() if self._door is not None else None
        if client is None:
            return
        self._clients.add(client)
        self._selector.register(client, selectors.EVENT_READ, partial(self._answer, client))
        self._answer(client)  # what it is has often been said by now

    def _answer(self, client: Client) -> None:
        """Hand a launcher a copy, if it may have one and there is one."""
        if client not in self._clients:
            return  # it was dismissed since
        try:
            asking = client.read()
        except BlockingIOError:
            return
        except OSError:
            asking = b""
        if asking and not self._give(client, asking):
            client.refuse()
        self._dismiss(client)

    def _give(self, client: Client, asking: bytes) -> bool:
        self._compare_mounts()
        if asking not in self._welcome:
            served = self._served
            if served.surroundings.difference(Surroundings(asking), served.modes, self._allow) is not None:
                return False
            self._welcome = {asking}
        copy = self._shelf.ask()
        if copy is None:
            return False
        self._selector.unregister(copy)
        self._given += 1
        self._tell()  # before the launcher can
        given = client.give(copy.descriptors)
        if given:
            copy.given()
            self._pages.watch(copy)
        copy.let_go()
        return given

    def _dismiss(self, client: Client) -> None:
        self._selector.unregister(client)
        self._clients.remove(client)
        client.close()

    # ---- what changes ------------------------------------------------------

    def _look(self) -> None:
        """Look at what nobody tells of."""
        now = time.monotonic()
        for client in [client for client in self._clients if client.deadline < now]:
            self._dismiss(client)
        self._compare_mounts()
        self._trim()
        try:
            self._follow()
        except (CriuError, OSError) as error:
            self._complain(error)

    def _follow(self) -> None:
        """Serve the snapshot as it is now, if it is not what we know."""
        try:
            path = socket_of(self._path)
        except OSError:
            self._close_door()
            self._drop_all()
            raise
        if self._door is not None and self._door.path == path and self._door.is_there:
            return
        self._close_door()
        self._drop_all()
        self._pages.close()
        self._tell()  # before anybody can see the new door, and take the old copies for its own
        self._served = open_served(self._path, self._wanted)
        self._welcome = set()
        self._door = Door(path)
        self._selector.register(self._door, selectors.EVENT_READ, self._accept)

    def _close_door(self) -> None:
        for client in list(self._clients):
            self._dismiss(client)
        if self._door is not None:
            self._selector.unregister(self._door)
            self._door.close()
            self._door = None
