"""Connections that database clients keep for later: closed before a dump, made when they are wanted."""

from __future__ import annotations

import sys
from typing import Any

from libcriu_py.program.objects import live
from libcriu_py.resources.base import BuiltIn


class SqlalchemyPools(BuiltIn):
    """
    The pools of SQLAlchemy that keep connections in a queue.

    Others are left alone: the one connection of a StaticPool or SingletonThreadPool may be a database in memory.
    """

    def let_go(self) -> Any:
        """Close what is checked in; what is checked out is the program's."""
        pools = live(sys.modules["sqlalchemy.pool"].QueuePool)
        for pool in pools:
            if not _is_async(pool):
                # dispose() empties the queue, and the pool can be used after it (sqlalchemy/pool/impl.py).
                pool.dispose()
        waiting = [pool for pool in pools if _is_async(pool) and pool.checkedin()]
        return _dispose(waiting) if waiting else None


def _is_async(pool: Any) -> bool:
    return bool(getattr(pool, "_is_asyncio", False))


async def _dispose(pools: list[Any]) -> None:
    """Close connections that belong to the running event loop, as `AsyncEngine.dispose()` does."""
    from sqlalchemy.util import greenlet_spawn

    for pool in pools:
        await greenlet_spawn(pool.dispose)
    await _let_close()


async def _let_close() -> None:
    """Let transports close their sockets: in the next turn of the loop, over TLS in the one after."""
    import asyncio

    for _ in range(3):
        await asyncio.sleep(0)


class RedisPools(BuiltIn):
    """The pools of redis-py, whose connections connect again by themselves (connection.py, asyncio/connection.py)."""

    async def _close(self, connections: list[Any]) -> None:
        for connection in connections:
            await connection.disconnect()
        await _let_close()

    def let_go(self) -> Any:
        """Disconnect what is not in use, those of asyncio in the running event loop."""
        for pool in live(sys.modules["redis.connection"].ConnectionPool):
            pool.disconnect(inuse_connections=False)
        module: Any = sys.modules.get("redis.asyncio.connection")
        pools = live(module.ConnectionPool) if module is not None else []
        idle = [item for pool in pools for item in pool._available_connections if item.is_connected]  # noqa: SLF001
        return self._close(idle) if idle else None
