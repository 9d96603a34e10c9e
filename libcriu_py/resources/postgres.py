"""
Connections that pools for PostgreSQL keep for later: closed before a dump, made anew in each copy.

What is in use is the program's, and `preflight` names it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from libcriu_py.program.objects import live
from libcriu_py.resources.base import Arrival, BuiltIn


class PsycopgPools(BuiltIn):
    """
    The pools of psycopg_pool, of threads and of event loops.

    Their own workers make the new connections, as after `drain()` (psycopg_pool/pool.py), which would begin at once.
    """

    def __init__(self) -> None:
        self._missing: list[tuple[Any, Any, int]] = []

    def let_go(self) -> None:
        """Close what waits in the pools."""
        for name, kind in (("pool", "ConnectionPool"), ("pool_async", "AsyncConnectionPool")):
            module: Any = sys.modules.get(f"psycopg_pool.{name}")
            if module is None:
                continue
            for pool in live(getattr(module, kind)):
                waiting = _take(pool)
                self._missing.append((pool, module.AddConnection, len(waiting)))
                for connection in waiting:
                    connection.pgconn.finish()

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Have as many made as there were."""
        self.come_back()

    def come_back(self) -> None:
        """Have as many made as there were."""
        missing, self._missing = self._missing, []
        for pool, task, count in missing:
            for _ in range(count):
                pool.run_task(task(pool))


def _take(pool: Any) -> list[Any]:
    """Take all connections out of a pool: no thread gets one of them meanwhile, and no task of this loop."""
    taken = []
    while True:
        try:
            taken.append(pool._pool.popleft())  # noqa: SLF001
        except IndexError:
            return taken


class AsyncpgPools(BuiltIn):
    """The pools of asyncpg, whose holders connect when they are asked (asyncpg/pool.py, PoolConnectionHolder)."""

    def __init__(self) -> None:
        self._pools: list[tuple[Any, int]] = []

    async def _close(self, holders: list[Any]) -> None:
        for holder in holders:
            holder.terminate()
        # A transport closes its socket in the next turn of the loop, over TLS in the one after.
        for _ in range(3):
            await asyncio.sleep(0)

    def let_go(self) -> Any:
        """Close what is connected and not in use, in the running event loop."""
        idle = []
        for pool in live(sys.modules["asyncpg.pool"].Pool):
            # Newer ones connect again at once to have as many as they should.
            self._pools.append((pool, pool._minsize))  # noqa: SLF001
            pool._minsize = 0  # noqa: SLF001
            idle += [holder for holder in pool._holders if holder._con is not None and not holder._in_use]  # noqa: SLF001
        return self._close(idle) if idle else None

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Let them have as many as they should."""
        self.come_back()

    def come_back(self) -> None:
        """Let them have as many as they should."""
        pools, self._pools = self._pools, []
        for pool, size in pools:
            pool._minsize = size  # noqa: SLF001
            connect = getattr(pool, "_schedule_min_size_maintenance", None)
            if connect is not None:
                connect()
