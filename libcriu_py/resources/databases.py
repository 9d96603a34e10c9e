"""
Connections that database clients keep for later: closed before a dump, made when they are wanted.
"""

from __future__ import annotations

import sys
from typing import Any

from libcriu_py.resources.base import BuiltIn, live


class SqlalchemyPools(BuiltIn):
    """
    The pools of SQLAlchemy that keep connections in a queue.

    Others are left alone: the one connection of a StaticPool or SingletonThreadPool may be a database in memory.
    """

    def let_go(self) -> None:
        """
        Close what is checked in; what is checked out is the program's.
        """
        for pool in live(sys.modules["sqlalchemy.pool"].QueuePool):
            # dispose() empties the queue, and the pool can be used after it (sqlalchemy/pool/impl.py).
            pool.dispose()


class RedisPools(BuiltIn):
    """
    The pools of redis-py, whose connections connect again by themselves (redis/connection.py).
    """

    def __init__(self) -> None:
        self._redis: Any = sys.modules["redis.connection"]

    def let_go(self) -> None:
        """
        Disconnect what is not in use.
        """
        for pool in live(self._redis.ConnectionPool):
            pool.disconnect(inuse_connections=False)
