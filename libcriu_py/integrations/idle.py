"""
A uvicorn that ends when it has had nothing to do for a while, for sockets of systemd that start it again.

    python -m libcriu_py.integrations.idle 60 app:app --fd 3

It ends only without a connection. One that comes then stays in the queue of the socket, which systemd holds too, until
the next start takes it.
"""

from __future__ import annotations

import sys
import time
from typing import Any


def end_when_idle(seconds: float) -> None:
    """
    Have servers of uvicorn end as if they were asked to, but only without a connection.

    Args:
        seconds: How long there is to be none, and no request, before.
    """
    import uvicorn

    server: Any = uvicorn.Server
    on_tick = server.on_tick  # called every 100 ms

    async def on_tick_or_idle(self: Any, counter: int) -> bool:
        state = self.server_state
        now = (time.monotonic(), state.total_requests)
        seen: tuple[float, int] = self.__dict__.setdefault("_libcriu_py_seen", now)
        if state.connections or state.tasks or seen[1] != now[1]:
            self._libcriu_py_seen = seen = now
        ends: bool = await on_tick(self, counter)
        return ends or now[0] - seen[0] >= seconds

    server.on_tick = on_tick_or_idle


if __name__ == "__main__":
    from uvicorn.main import main

    end_when_idle(float(sys.argv.pop(1)))
    sys.argv[0] = "uvicorn"
    main()
