"""
Idle connections of PostgreSQL pools: closed before a dump, reopened in each copy and in the original.

Connections in use are left to the program; `preflight` names them.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from libcriu_py.program.objects import live
from libcriu_py.resources.base import BuiltIn


class PsycopgPools(BuiltIn):
    """
    The pools of psycopg_pool, for threads and for event loops.

    Their own workers reconnect, as after `drain()` (psycopg_pool/pool.py), which would do so at once.
    """

    def __init__(self) -> None:
        self._missing: list[tuple[Any, Any, int]] = []

    def before_dump(self) -> None:
        """Close the idle connections, and count them."""
        for name, kind in (("pool", "ConnectionPool"), ("pool_async", "AsyncConnectionPool")):
            module: Any = sys.modules.get(f"psycopg_pool.{name}")
            if module is None:
                continue
            for pool in live(getattr(module, kind)):
                waiting = _take(pool)
                self._missing.append((pool, module.AddConnection, len(waiting)))
                for connection in waiting:
                    connection.pgconn.finish()

    def in_original(self) -> None:
        """Have as many reopened."""
        missing, self._missing = self._missing, []
        for pool, task, count in missing:
            for _ in range(count):
                pool.run_task(task(pool))


def _take(pool: Any) -> list[Any]:
    """Remove all connections from a pool, one by one, so that no thread or task gets one of them meanwhile."""
    taken = []
    while True:
        try:
            taken.append(pool._pool.popleft())  # noqa: SLF001
        except IndexError:
            return taken


class AsyncpgPools(BuiltIn):
    """The pools of asyncpg, whose holders reconnect on demand (asyncpg/pool.py, PoolConnectionHolder)."""

    def __init__(self) -> None:
        self._pools: list[tuple[Any, int]] = []

    async def _close(self, holders: list[Any]) -> None:
        for holder in holders:
            holder.terminate()
        # A transport closes its socket in the next iteration of the loop, with TLS in the one after.
        for _ in range(3):
            await asyncio.sleep(0)

    def before_dump(self) -> Any:
        """Close idle connections in the running event loop, and stop the pools from reopening them."""
        idle = []
        for pool in live(sys.modules["asyncpg.pool"].Pool):
            # Newer versions reconnect at once to keep their minimum.
            self._pools.append((pool, pool._minsize))  # noqa: SLF001
            pool._minsize = 0  # noqa: SLF001
            idle += [holder for holder in pool._holders if holder._con is not None and not holder._in_use]  # noqa: SLF001
        return self._close(idle) if idle else None

    def in_original(self) -> None:
        """Let them keep their minimum again."""
        pools, self._pools = self._pools, []
        for pool, size in pools:
            pool._minsize = size  # noqa: SLF001
            connect = getattr(pool, "_schedule_min_size_maintenance", None)
            if connect is not None:
                connect()
