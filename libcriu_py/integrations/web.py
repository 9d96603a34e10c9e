"""Answer requests in process before a checkpoint: copies of a server begin where its second request would."""

from __future__ import annotations

import asyncio
import inspect
import io
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

ROUNDS = 3
"""How often each path is asked for: Python specialises bytecode from the second call of a function on."""


def warm_app(app: Any, paths: Iterable[str] = ("/",), *, lifespan: bool = False) -> None:
    """
    Have an application answer GET requests, without a server or a socket.

        from libcriu_py import warm_app
        from app import app

        warm_app(app, ["/health"])

    Call it before the checkpoint: in its block, or in a module that ``libcriu-py snapshot --preload`` names. What a
    request leaves in the application, such as a line in a log or a connection, is in the copies, too.

    Args:
        app: An application of ASGI 3 or WSGI.
        paths: What to ask for, such as "/search?q=x".
        lifespan: Whether an ASGI application is to start up before and to shut down after: an application that answers
            only then. Otherwise it sees neither event.

    Raises:
        RuntimeError: A request was answered with status 400 or above, or the application did not start up.
        Exception: What the application raises.
    """
    wanted = [path for path in paths for _ in range(ROUNDS)]
    if _is_asgi(app):
        asyncio.run(_warm_asgi(app, wanted, lifespan=lifespan))
    else:
        for path in wanted:
            _check(path, _answer_wsgi(app, path))


def _is_asgi(app: Any) -> bool:
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None))  # noqa: B004


def _check(path: str, status: int) -> None:
    if status >= 400:
        message = f"warm_app: {path} was answered with status {status}; name paths that answer a GET, of no user"
        raise RuntimeError(message)


def _split(path: str) -> tuple[str, str]:
    from urllib.parse import unquote

    path, _, query = path.partition("?")
    return unquote(path), query


def _answer_wsgi(app: Any, path: str) -> int:
    """Return the status of the answer (PEP 3333)."""
    found: list[int] = []

    def start_response(status: str, headers: object, exc_info: Any = None) -> Any:  # noqa: ARG001
        found.append(int(status.split(maxsplit=1)[0]))
        return io.BytesIO().write

    plain, query = _split(path)
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": plain.encode().decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    body = app(environ, start_response)
    try:
        for _ in body:
            pass
    finally:
        if hasattr(body, "close"):
            body.close()
    return found[-1]


async def _warm_asgi(app: Any, paths: Iterable[str], *, lifespan: bool) -> None:
    state: dict[str, Any] = {}
    life = _Life(app, state) if lifespan else None
    if life is not None:
        await life.begin()
    try:
        for path in paths:
            _check(path, await _answer_asgi(app, path, state))
    finally:
        if life is not None:
            await life.end()


async def _answer_asgi(app: Any, path: str, state: dict[str, Any]) -> int:
    """Return the status of the answer (ASGI's specification, HTTP)."""
    found: list[int] = []
    is_answered = asyncio.Event()
    plain, query = _split(path)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": plain,
        "raw_path": path.partition("?")[0].encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 12345),
        "server": ("localhost", 80),
        "state": dict(state),
    }
    request = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if request:
            return request.pop()
        await is_answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            found.append(message["status"])
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            is_answered.set()

    await app(scope, receive, send)
    return found[-1]


class _Life:
    """The lifespan of an ASGI application, in a task as a server has it."""

    def __init__(self, app: Any, state: dict[str, Any]) -> None:
        self._events: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._answers: asyncio.Queue[str] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}

        async def send(message: dict[str, Any]) -> None:
            await self._answers.put(message["type"])

        self._task = asyncio.ensure_future(app(scope, self._events.get, send))

    async def begin(self) -> None:
        """Start the application up."""
        await self._tell("startup")

    async def end(self) -> None:
        """Shut it down."""
        await self._tell("shutdown")
        await self._task

    async def _tell(self, event: str) -> None:
        await self._events.put({"type": f"lifespan.{event}"})
        answer = asyncio.ensure_future(self._answers.get())
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            answer.cancel()
            self._task.result()
        if not answer.done() or answer.result() != f"lifespan.{event}.complete":
            message = f"warm_app: the application did not complete its {event}"
            raise RuntimeError(message)
