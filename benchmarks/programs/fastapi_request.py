"""Build a FastAPI application and answer one request, without a socket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

if TYPE_CHECKING:
    from collections.abc import MutableMapping


@dataclass
class Sale:
    """One sale, as the request carries it."""

    product: str
    units: int
    unit_price: float


@dataclass
class Total:
    """What the sale brought in."""

    product: str
    revenue: float


def build() -> FastAPI:
    """Make the application: a route with a validated body and response."""
    app = FastAPI(title="sales")

    @app.post("/sales")
    def record(sale: Sale) -> Total:
        return Total(product=sale.product, revenue=sale.units * sale.unit_price)

    return app


async def post(app: FastAPI, path: str, body: bytes) -> tuple[int, bytes]:
    """Send one request through the ASGI interface, as a server would, and return the status and the body."""
    status = 0
    answer = bytearray()

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            answer.extend(message.get("body", b""))

    scope: MutableMapping[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("ascii"),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    return status, bytes(answer)


def main() -> None:
    """Answer one request and print the answer."""
    body = b'{"product": "saw", "units": 3, "unit_price": 32.5}'
    status, answer = asyncio.run(post(build(), "/sales", body))
    print("ready", status, answer.decode(), flush=True)


if __name__ == "__main__":
    main()
