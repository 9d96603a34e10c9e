"""Idle connections of database clients: closed before a dump; the clients reconnect on demand."""

from __future__ import annotations

import sys
from typing import Any

from libcriu_py.program.objects import live
from libcriu_py.resources.base import BuiltIn


class SqlalchemyPools(BuiltIn):
    """
    The queue pools of SQLAlchemy.

    Other pools keep theirs: the only connection of a StaticPool or SingletonThreadPool may be an in-memory database.
    """

    def before_dump(self) -> Any:
        """Close checked-in connections; those checked out are the program's."""
        pools = live(sys.modules["sqlalchemy.pool"].QueuePool)
        for pool in pools:
            if not _is_async(pool):
                # dispose() empties the queue, and the pool stays usable (sqlalchemy/pool/impl.py).
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
    """Let transports close their sockets: in the next iteration of the loop, with TLS in the one after."""
    import asyncio

    for _ in range(3):
        await asyncio.sleep(0)


class RedisPools(BuiltIn):
    """The pools of redis-py, whose connections reconnect by themselves (connection.py, asyncio/connection.py)."""

    async def _close(self, connections: list[Any]) -> None:
        for connection in connections:
            await connection.disconnect()
        await _let_close()

    def before_dump(self) -> Any:
        """Disconnect idle connections; those of asyncio in the running event loop."""
        for pool in live(sys.modules["redis.connection"].ConnectionPool):
            pool.disconnect(inuse_connections=False)
        module: Any = sys.modules.get("redis.asyncio.connection")
        pools = live(module.ConnectionPool) if module is not None else []
        idle = [item for pool in pools for item in pool._available_connections if item.is_connected]  # noqa: SLF001
        return self._close(idle) if idle else None
