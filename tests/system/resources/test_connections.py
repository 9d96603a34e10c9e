"""Kept connections of HTTP and database clients: closed before the dump, made anew in each copy."""

from __future__ import annotations

import contextlib
import socketserver
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.system.pairs import both
from tests.system.selfdump import take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the client's port, and keep the connection."""
        body = str(self.client_address[1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@contextlib.contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[str]:
    """Let a server serve meanwhile, whatever happens; give its port."""
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield str(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def http_server() -> Iterator[str]:
    """Yield the URL of a server that keeps connections open."""
    with serving(_Server(("127.0.0.1", 0), _Handler)) as port:
        yield f"http://127.0.0.1:{port}/"


CLIENTS = {
    "urllib3": "client = urllib3.PoolManager()\ndef get():\n    return client.request('GET', url).data",
    "urllib3-pool": "client = urllib3.connectionpool.connection_from_url(url)\n"
    "def get():\n    return client.request('GET', url).data",
    "requests": "client = requests.Session()\ndef get():\n    return client.get(url).content",
    "httpx": "client = httpx.Client(trust_env=False)\ndef get():\n    return client.get(url).content",
    "botocore": """
from botocore import UNSIGNED, config, session
client = session.get_session().create_client(
    "s3", region_name="eu-west-1", endpoint_url=url, config=config.Config(signature_version=UNSIGNED)
)
def get():
    return client.get_object(Bucket="bucket", Key="key")["Body"].read()
""",
}
"""Clients that keep connections, and how each asks."""


@pytest.mark.parametrize("client", CLIENTS)
def test_http_client(client: str, http_server: str, mode: Mode, directory_of: Directories) -> None:
    """A client used before the dump has no socket in the image, and works in each copy."""
    code = f"""
import json, sys
import {client.split("-", maxsplit=1)[0]}
from libcriu_py import checkpoint
url = sys.argv[1]
{CLIENTS[client]}
with checkpoint():
    assert get() == get(), "the connection is not kept"
    warm = get()
first = get()
assert get() == first, "the connection is not kept"
print(json.dumps([first.decode(), warm.decode()]))
"""
    dump = take(mode, directory_of(mode.account), code, http_server)
    (one, old), (other, _) = both(dump, http_server)
    assert len({one, other, old}) == 3


ASYNC_CLIENTS = {
    "httpx": "client = httpx.AsyncClient(trust_env=False)\n"
    "    async def get():\n        return (await client.get(url)).text",
    "aiohttp": "client = aiohttp.ClientSession()\n"
    "    async def get():\n        async with client.get(url) as answer:\n            return await answer.text()",
}


@pytest.mark.parametrize("client", ASYNC_CLIENTS)
def test_async_http_client(client: str, http_server: str, mode: Mode, directory_of: Directories) -> None:
    """An async client that belongs to the running event loop likewise."""
    code = f"""
import asyncio, json, sys
import {client}
from libcriu_py import checkpoint
url = sys.argv[1]
async def main():
    {ASYNC_CLIENTS[client]}
    async with checkpoint():
        warm = await get()
        assert await get() == warm, "the connection is not kept"
    first = await get()
    assert await get() == first, "the connection is not kept"
    print(json.dumps([first, warm]))
    await (client.aclose() if hasattr(client, "aclose") else client.close())
asyncio.run(main())
"""
    dump = take(mode, directory_of(mode.account), code, http_server)
    (one, old), (other, _) = both(dump, http_server)
    assert len({one, other, old}) == 3


class _Echo(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Redis(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        """Speak as much of RESP2 as PING and the set-up of a connection need; GET gives the client's port."""
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(size + 2)[:-2].upper())
            port = str(self.client_address[1]).encode()
            answer = b"$%d\r\n%s\r\n" % (len(port), port) if words[0] == b"GET" else b"+OK\r\n"
            self.wfile.write(b"-ERR unknown command\r\n" if words[0] == b"HELLO" else answer)
            self.wfile.flush()


REDIS = {
    "sync": """
import json, sys
import redis
from libcriu_py import checkpoint
client = redis.Redis(port=int(sys.argv[1]), protocol=2)
with checkpoint():
    warm = client.get("x")
    assert client.get("x") == warm, "the connection is not kept"
first = client.get("x")
assert first == client.get("x"), "the connection is not kept"
print(json.dumps([first.decode(), warm.decode()]))
""",
    "asyncio": """
import asyncio, json, sys
import redis.asyncio
from libcriu_py import checkpoint
async def main():
    client = redis.asyncio.Redis(port=int(sys.argv[1]), protocol=2)
    async with checkpoint():
        warm = await client.get("x")
        assert await client.get("x") == warm, "the connection is not kept"
    first = await client.get("x")
    assert first == await client.get("x"), "the connection is not kept"
    print(json.dumps([first.decode(), warm.decode()]))
    await client.aclose()
asyncio.run(main())
""",
}
"""Programs with a client of redis-py."""


@pytest.mark.parametrize("client", REDIS)
def test_redis(client: str, mode: Mode, directory_of: Directories) -> None:
    """A client of redis-py used before the dump connects again in each copy."""
    with serving(_Echo(("127.0.0.1", 0), _Redis)) as port:
        dump = take(mode, directory_of(mode.account), REDIS[client], port)
        (one, old), (other, _) = both(dump, port)
        assert len({one, other, old}) == 3


def test_sqlalchemy(mode: Mode, directory_of: Directories) -> None:
    """A queue of SQLAlchemy connections is emptied and filled again; a database in memory survives."""
    code = """
    import json, sqlite3, sys
    from sqlalchemy import create_engine, pool, text
    from libcriu_py import checkpoint
    made = []
    def connect():
        made.append(sqlite3.connect(sys.argv[1], check_same_thread=False))
        return made[-1]
    queued = create_engine("sqlite://", creator=connect, poolclass=pool.QueuePool)
    memory = create_engine("sqlite://")
    with memory.begin() as connection:
        connection.execute(text("create table t as select 42 as x"))
    def ask():
        with queued.connect() as connection:
            connection.execute(text("select 1"))
    with checkpoint():
        ask(), ask()
        assert len(made) == 1
    ask(), ask()
    with memory.begin() as connection:
        print(json.dumps([len(made), connection.execute(text("select x from t")).scalar()]))
    """
    directory = directory_of(mode.account)
    dump = take(mode, directory, code, str(directory / "db"))
    assert both(dump, str(directory / "db")) == [[2, 42]] * 2


def test_async_sqlalchemy(mode: Mode, directory_of: Directories) -> None:
    """A queue of an async engine likewise, in the event loop that it belongs to."""
    code = """
    import asyncio, json, sys
    from sqlalchemy import event, text
    from sqlalchemy.ext.asyncio import create_async_engine
    from libcriu_py import checkpoint
    made = []
    async def main():
        engine = create_async_engine("sqlite+aiosqlite:///" + sys.argv[1])
        event.listen(engine.sync_engine, "connect", lambda *connection: made.append(1))
        async def ask():
            async with engine.connect() as connection:
                await connection.execute(text("select 1"))
        async with checkpoint():
            await ask(), await ask()
            assert len(made) == 1
        await ask(), await ask()
        await engine.dispose()
    asyncio.run(main())
    print(json.dumps(len(made)))
    """
    directory = directory_of(mode.account)
    dump = take(mode, directory, code, str(directory / "db"))
    assert both(dump, str(directory / "db")) == [2, 2]


class _Postgres(socketserver.StreamRequestHandler):
    """As much of PostgreSQL's protocol 3.0 as its clients need; each query gives the client's port."""

    def handle(self) -> None:
        """Go through the start-up, and answer each message."""
        while True:
            (size,) = struct.unpack("!i", self.rfile.read(4))
            (code,) = struct.unpack("!i", self.rfile.read(size - 4)[:4])
            if code == 196608:  # version 3.0; others ask for encryption
                break
            self._send(b"N")
        self._say(b"R", struct.pack("!i", 0))
        for name, value in ((b"server_version", b"16.0"), (b"client_encoding", b"UTF8")):
            self._say(b"S", name + b"\0" + value + b"\0")
        self._say(b"K", struct.pack("!ii", 1, 1))
        self._say(b"Z", b"I")
        while (kind := self.rfile.read(1)) not in {b"", b"X"}:
            (size,) = struct.unpack("!i", self.rfile.read(4))
            self._answer(kind, self.rfile.read(size - 4))

    def _answer(self, kind: bytes, body: bytes) -> None:
        port = str(self.client_address[1]).encode()
        columns = struct.pack("!h", 1) + b"port\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
        row = struct.pack("!hi", 1, len(port)) + port
        rows = [(b"D", row), (b"C", b"SELECT 1\0")]
        answers: dict[bytes, list[tuple[bytes, bytes]]] = {
            b"P": [(b"1", b"")],
            b"B": [(b"2", b"")],
            b"C": [(b"3", b"")],
            b"D": [(b"t", struct.pack("!h", 0)), (b"T", columns)] if body[:1] == b"S" else [(b"T", columns)],
            b"E": rows,
            b"S": [(b"Z", b"I")],
            b"Q": [(b"T", columns), *rows, (b"Z", b"I")] if b"port" in body else [(b"C", b"OK\0"), (b"Z", b"I")],
        }
        for answer in answers.get(kind, []):
            self._say(*answer)

    def _say(self, kind: bytes, body: bytes) -> None:
        self._send(kind + struct.pack("!i", len(body) + 4) + body)

    def _send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()


POSTGRES = {
    "psycopg": """
import json, sys
from psycopg_pool import ConnectionPool
from libcriu_py import checkpoint
def get():
    with pool.connection() as connection:
        return connection.execute("select port").fetchone()[0]
with ConnectionPool(f"host=127.0.0.1 port={sys.argv[1]} user=x dbname=x", min_size=1, max_size=1) as pool:
    with checkpoint():
        warm = get()
        assert get() == warm, "the connection is not kept"
    first = get()
    assert get() == first, "the connection is not kept"
print(json.dumps([first, warm]))
""",
    "psycopg-async": """
import asyncio, json, sys
from psycopg_pool import AsyncConnectionPool
from libcriu_py import checkpoint
async def main():
    async def get():
        async with pool.connection() as connection:
            return (await (await connection.execute("select port")).fetchone())[0]
    address = f"host=127.0.0.1 port={sys.argv[1]} user=x dbname=x"
    async with AsyncConnectionPool(address, min_size=1, max_size=1, open=False) as pool:
        async with checkpoint():
            warm = await get()
            assert await get() == warm, "the connection is not kept"
        first = await get()
        assert await get() == first, "the connection is not kept"
    print(json.dumps([first, warm]))
asyncio.run(main())
""",
    "asyncpg": """
import asyncio, json, sys
import asyncpg
from libcriu_py import checkpoint
async def main():
    async def get():
        return await pool.fetchval("select port")
    async with asyncpg.create_pool(host="127.0.0.1", port=int(sys.argv[1]), user="x", database="x", min_size=1,
                                   max_size=1, ssl=False) as pool:
        async with checkpoint():
            warm = await get()
            assert await get() == warm, "the connection is not kept"
        first = await get()
        assert await get() == first, "the connection is not kept"
    print(json.dumps([first, warm]))
asyncio.run(main())
""",
}
"""Programs with a pool of connections to PostgreSQL."""


@pytest.mark.parametrize("client", POSTGRES)
def test_postgres(client: str, mode: Mode, directory_of: Directories) -> None:
    """A pool used before the dump has no socket in the image, and connects anew in each copy."""
    with serving(_Echo(("127.0.0.1", 0), _Postgres)) as port:
        dump = take(mode, directory_of(mode.account), POSTGRES[client], port)
        (one, old), (other, _) = both(dump, port)
        assert len({one, other, old}) == 3
