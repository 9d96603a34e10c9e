"""
Idle connections of HTTP clients: closed before a dump; the clients reconnect on demand.

Connections in use are left to the program; `preflight` names them. requests, botocore and boto3 use urllib3's pools.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from libcriu_py.program.objects import live
from libcriu_py.resources.base import BuiltIn


class Urllib3Pools(BuiltIn):
    """The pools of urllib3. A closed connection in a pool reconnects by itself (urllib3/connection.py)."""

    def before_dump(self) -> None:
        """Close the idle connections."""
        for pool in live(sys.modules["urllib3.connectionpool"].HTTPConnectionPool):
            queue = pool.pool
            if queue is None:
                continue
            for connection in list(queue.queue):
                if connection is not None:
                    connection.close()


class HttpcorePools(BuiltIn):
    """The pools of httpcore, which httpx uses. They stay usable after `close()` (httpcore/_sync/connection_pool.py)."""

    async def _close(self, pools: list[Any]) -> None:
        for pool in pools:
            await pool.aclose()
        await asyncio.sleep(0)

    def before_dump(self) -> Any:
        """Close idle connections; those of async pools in the running event loop."""
        httpcore: Any = sys.modules["httpcore"]
        for pool in live(httpcore.ConnectionPool):
            if all(connection.is_idle() or connection.is_closed() for connection in pool.connections):
                pool.close()
        waiting = [pool for pool in live(httpcore.AsyncConnectionPool) if pool.connections]
        if waiting:
            return self._close(waiting)
        return None


class AiohttpConnectors(BuiltIn):
    """The connectors of aiohttp, which belong to the running event loop."""

    async def _close(self, kept: list[Any]) -> None:
        for connector in kept:
            for entries in connector._conns.values():  # noqa: SLF001
                for entry in entries:
                    entry[0].abort()
            connector._conns.clear()  # noqa: SLF001
        # A transport closes its socket in the next iteration of the loop, with TLS in the one after.
        for _ in range(3):
            await asyncio.sleep(0)

    def before_dump(self) -> Any:
        """Close the idle connections."""
        kept = [item for item in live(sys.modules["aiohttp.connector"].BaseConnector) if item._conns]  # noqa: SLF001
        return self._close(kept) if kept else None
