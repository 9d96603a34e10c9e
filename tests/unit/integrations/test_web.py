"""Requests that an application answers before a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from libcriu_py import warm_app
from libcriu_py.integrations.web import ROUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Asgi:
    """An application of ASGI that notes what it is asked, and can fail to start up."""

    def __init__(self, *, fails: bool = False) -> None:
        self.seen: list[object] = []
        self._fails = fails

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, or see events."""
        if scope["type"] == "lifespan":
            while True:
                event = (await receive())["type"]
                self.seen.append(event)
                scope["state"]["pool"] = "open"
                await send({"type": f"{event}.{'failed' if self._fails else 'complete'}"})
                if event == "lifespan.shutdown" or self._fails:
                    return
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        self.seen.append((scope["method"], scope["path"], scope["query_string"], scope["state"].get("pool")))
        status = 404 if scope["path"] == "/missing" else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})
        assert (await receive())["type"] == "http.disconnect"


def test_asgi() -> None:
    """It is asked several times, and sees no event of lifespan."""
    app = Asgi()
    warm_app(app, ["/a%20b?q=1"])
    assert app.seen == [("GET", "/a b", b"q=1", None)] * ROUNDS


def test_lifespan() -> None:
    """It starts up before, has its state in each request, and shuts down."""
    app = Asgi()
    warm_app(app, ["/"], lifespan=True)
    assert app.seen == ["lifespan.startup", *[("GET", "/", b"", "open")] * ROUNDS, "lifespan.shutdown"]


def test_lifespan_that_fails() -> None:
    """It is asked nothing."""
    app = Asgi(fails=True)
    with pytest.raises(RuntimeError, match="did not complete its startup"):
        warm_app(app, ["/"], lifespan=True)
    assert app.seen == ["lifespan.startup"]


def test_answer_that_is_an_error() -> None:
    """A path that is not there is most likely a mistake."""
    with pytest.raises(RuntimeError, match="/missing was answered with status 404"):
        warm_app(Asgi(), ["/missing"])


def test_wsgi() -> None:
    """The body is read to its end, and closed."""
    seen: list[object] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"a"
            seen.append("end")

        def close(self) -> None:
            seen.append("closed")

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Body:
        seen.append((environ["PATH_INFO"], environ["QUERY_STRING"], environ["wsgi.input"].read()))
        start_response("200 OK", [])
        return Body()

    warm_app(app, ["/x?y"])
    assert seen == [("/x", "y", b""), "end", "closed"] * ROUNDS
