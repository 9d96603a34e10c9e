"""
The loop of a standby pool: keep copies in stock, and hand them to launchers.

One thread waits for all events; restores run in another.
"""

from __future__ import annotations

import os
import selectors
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.copies.standby.listener import (
    QUESTION,
    Client,
    Listener,
    PoolStatus,
    Surroundings,
    own_surroundings,
    socket_of,
)
from libcriu_py.copies.standby.pages import Pages
from libcriu_py.copies.standby.stock import Bounds, Stock
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
"""Seconds between checks of the snapshot, the mounts and the memory."""

_PATIENCE = 0.2
"""Seconds to wait for the launchers of copies in use when the pool ends."""


class Served(NamedTuple):
    """A snapshot that is being served, with one manifest."""

    snapshot: Snapshot
    mode: Privilege
    modes: frozenset[str]
    """The modes that launchers may ask for to get this one."""
    surroundings: Surroundings


def open_served(path: str, wanted: Privilege | str | None) -> Served:
    """
    Open a snapshot, and decide on the privilege mode of its restores.

    Raises:
        CriuError: The snapshot cannot be used here.
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

    Thread safety: any thread may call `stop`; the other methods are for one thread.
    """

    def __init__(
        self,
        path: str,
        bounds: Bounds,
        *,
        mode: Privilege | str | None,
        allow: Collection[str],
        report: Callable[[str], None],
        on_change: Callable[[PoolStatus], None],
    ) -> None:
        """
        Listen.

        Args:
            path: The snapshot's directory.
            bounds: How many copies wait.
            mode: Privilege mode; None picks the first that works.
            allow: Differences that launchers may have.
            report: Called with later problems.
            on_change: Called with the status whenever it may have changed.

        Raises:
            CriuError: The snapshot cannot be used here, or already has a pool.
        """
        self._path = path
        self._wanted = mode
        self._allow = allow
        self._report = report
        self._on_change = on_change
        self._stopping = False
        self._last_problem = ""
        self._had_copies = False
        self._served_count = 0
        self._accepted: set[bytes] = set()  # the launcher's description that was accepted last
        self._checked = time.monotonic()
        self._clients: set[Client] = set()
        self._launchers: set[Launcher] = set()
        self._served = open_served(path, mode)
        self._listener: Listener | None = Listener(socket_of(path))
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake_up = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._mounts = Watch()
        self._stock = Stock(bounds, self._wake)
        self._pages = Pages()
        self._selector.register(self._woken, selectors.EVENT_READ, self._take_restored)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    # ---- the loop ----------------------------------------------------------

    def run(self) -> None:
        """
        Serve until `stop` is called.

        Raises:
            CriuError: No copy could be restored.
        """
        try:
            while not self._stopping:
                self._step()
        finally:
            self._close()

    def stop(self) -> None:
        """Make `run` return."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_up, b"!")
        except OSError:
            return  # the loop wakes up anyway, or has ended

    def _take_restored(self) -> None:
        os.read(self._woken, 4096)
        copy = self._stock.take_restored()
        if copy is not None:
            self._had_copies = True
            self._watch(copy.launcher)
            self._selector.register(copy, selectors.EVENT_READ, partial(self._drop, copy))
            for pages in self._pages.files:
                copy.fetch(pages)
            self._trim()
        elif self._stock.error is not None:
            if not self._had_copies:
                raise self._stock.error
            self._report_once(self._stock.error)

    def _step(self) -> None:
        now = time.monotonic()
        if now - self._checked >= _TICK:
            self._checked = now
            self._check()
        pause = self._stock.fill(self._served.snapshot, self._served.mode) if self._listener is not None else None
        self._publish()
        pauses = [_TICK, *(left for left in (pause, self._pages.seconds_left()) if left is not None)]
        for key, _ in self._selector.select(max(0.0, min(pauses))):
            key.data()
        for pages in self._pages.check():
            for copy in self._stock.copies:
                copy.fetch(pages)

    def _publish(self) -> None:
        self._on_change(self._status())

    def _status(self) -> PoolStatus:
        is_complete = self._listener is not None and self._stock.is_complete
        return PoolStatus(len(self._stock.copies), is_complete, self._served_count)

    def _report_once(self, error: Exception | str) -> None:
        """Report a problem, but not again while it is the last one."""
        if str(error) != self._last_problem:
            self._last_problem = str(error)
            self._report(self._last_problem)

    def _close(self) -> None:
        """End the waiting copies; those in use go on."""
        self._close_listener()
        used = self._launchers - {copy.launcher for copy in self._stock.copies}
        self._stock.close()
        # The programs of some may have just ended.
        deadline = time.monotonic() + _PATIENCE
        for launcher in used:
            launcher.leave_running(max(0.0, deadline - time.monotonic()))
        self._selector.close()
        self._mounts.close()
        self._pages.close()
        wake_up, self._wake_up = self._wake_up, -1
        os.close(self._woken)
        os.close(wake_up)
        self._publish()

    # ---- copies ------------------------------------------------------------

    def _watch(self, launcher: Launcher) -> None:
        self._launchers.add(launcher)
        self._selector.register(launcher, selectors.EVENT_READ, partial(self._reap, launcher))

    def _reap(self, launcher: Launcher) -> None:
        self._selector.unregister(launcher)
        self._launchers.remove(launcher)
        launcher.reap()

    def _drop(self, copy: WaitingCopy) -> None:
        if copy in self._stock.copies:  # an event may be about a copy that has gone since
            self._selector.unregister(copy)
            self._stock.remove(copy)

    def _compare_mounts(self) -> None:
        """End copies whose mount namespaces lack what has been mounted since."""
        if self._mounts.have_changed():
            ours = mounts_of(os.getpid())
            for copy in list(self._stock.copies):
                if mounts_of(copy.pid) != ours:
                    self._drop(copy)

    def _drop_all(self) -> None:
        for copy in list(self._stock.copies):
            self._drop(copy)

    def _trim(self) -> None:
        for copy in self._stock.trim():
            self._drop(copy)
        if self._stock.excess is not None:
            self._report_once(self._stock.excess)

    # ---- launchers ---------------------------------------------------------

    def _accept(self) -> None:
        client = self._listener.accept() if self._listener is not None else None
        if client is None:
            return
        self._clients.add(client)
        self._selector.register(client, selectors.EVENT_READ, partial(self._answer, client))
        self._answer(client)  # its description has often arrived by now

    def _answer(self, client: Client) -> None:
        """Hand a launcher a copy, if it may have one and one is waiting."""
        if client not in self._clients:
            return  # it has been dismissed since
        try:
            asking = client.read()
        except BlockingIOError:
            return
        except OSError:
            asking = b""
        if asking == QUESTION:
            client.tell(self._status())
        elif asking and not self._hand_out(client, asking):
            client.refuse()
        self._dismiss(client)

    def _hand_out(self, client: Client, asking: bytes) -> bool:
        self._compare_mounts()
        if asking not in self._accepted:
            served = self._served
            if served.surroundings.difference(Surroundings(asking), served.modes, self._allow) is not None:
                return False
            self._accepted = {asking}
        copy = self._stock.take()
        if copy is None:
            return False
        self._selector.unregister(copy)
        self._served_count += 1
        self._publish()  # before the launcher sees the copy
        given = client.hand_over(copy.descriptors)
        if given:
            self._pages.watch(copy)
        copy.close()
        return given

    def _dismiss(self, client: Client) -> None:
        self._selector.unregister(client)
        self._clients.remove(client)
        client.close()

    # ---- changes of the surroundings ---------------------------------------

    def _check(self) -> None:
        """Check what causes no event."""
        now = time.monotonic()
        for client in [client for client in self._clients if client.deadline < now]:
            self._dismiss(client)
        self._compare_mounts()
        self._trim()
        try:
            self._reload()
        except (CriuError, OSError) as error:
            self._report_once(error)

    def _reload(self) -> None:
        """Serve the snapshot's present state, if it has been replaced or the socket has gone."""
        try:
            path = socket_of(self._path)
        except OSError:
            self._close_listener()
            self._drop_all()
            raise
        if self._listener is not None and self._listener.path == path and self._listener.is_there:
            return
        self._close_listener()
        self._drop_all()
        self._pages.close()
        self._publish()  # before the new socket appears, so that nobody counts the old copies as its
        self._served = open_served(self._path, self._wanted)
        self._accepted = set()
        self._listener = Listener(path)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _close_listener(self) -> None:
        for client in list(self._clients):
            self._dismiss(client)
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None
