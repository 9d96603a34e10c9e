"""
Connections that HTTP clients keep for later: closed before a dump, made when they are wanted.

Kept connections only: what is in use is the program's, and `preflight` names it. requests, botocore and boto3
keep theirs in pools of urllib3.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from libcriu_py.program.objects import live
from libcriu_py.resources.base import BuiltIn


class Urllib3Pools(BuiltIn):
    """The pools of urllib3. A closed connection in its queue connects again by itself (urllib3/connection.py)."""

    def let_go(self) -> None:
        """Close what waits in the queues."""
        for pool in live(sys.modules["urllib3.connectionpool"].HTTPConnectionPool):
            queue = pool.pool
            if queue is None:
                continue
            for connection in list(queue.queue):
                if connection is not None:
                    connection.close()


class HttpcorePools(BuiltIn):
    """The pools of httpcore, which httpx uses. They can be used after `close()` (httpcore/_sync/connection_pool.py)."""

    async def _close(self, pools: list[Any]) -> None:
        for pool in pools:
            await pool.aclose()
        await asyncio.sleep(0)

    def let_go(self) -> Any:
        """Close idle connections, those of async pools in the running event loop."""
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
        # A transport closes its socket in the next turn of the loop, over TLS in the one after.
        for _ in range(3):
            await asyncio.sleep(0)

    def let_go(self) -> Any:
        """Close what they keep."""
        kept = [item for item in live(sys.modules["aiohttp.connector"].BaseConnector) if item._conns]  # noqa: SLF001
        return self._close(kept) if kept else None
