"""Functions of AWS Lambda, by its runtime interface client and a Runtime API on loopback."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.integrations.serving import BIN, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APP = """
import os
import botocore.session, pandas
from snapshot_restore_py import register_after_restore, register_before_snapshot

COUNT = 0
HOOKS = []

@register_before_snapshot
def before():
    HOOKS.append("before")

@register_after_restore
def after():
    HOOKS.append(os.environ["AWS_REGION"])

def handler(event, context):
    global COUNT
    COUNT += 1
    if event == "raise":
        raise KeyError("wanted")
    session = botocore.session.get_session()
    credentials = session.get_credentials()
    return {
        "count": COUNT,
        "event": event,
        "id": context.aws_request_id,
        "key": credentials.access_key,
        "region": session.get_config_variable("region"),
        "api": os.environ["AWS_LAMBDA_RUNTIME_API"],
        "name": context.function_name,
        "hooks": HOOKS,
    }
"""
OTHER = """
import pandas
def handler(event, context):
    return {"other": event}
"""
AT_BUILD = {
    "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9",
    "AWS_DEFAULT_REGION": "of-the-build",
    "AWS_REGION": "of-the-build",
    "AWS_ACCESS_KEY_ID": "of-the-build",
    "AWS_SECRET_ACCESS_KEY": "of-the-build-too",
}


class RuntimeApi(ThreadingHTTPServer):
    """Lambda's Runtime API (https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html), version 2018-06-01."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.answers: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.address = f"127.0.0.1:{self.server_address[1]}"

    def invoke(self, number: int, event: Any) -> tuple[str, Any]:
        """Return the last words of the path of the answer, and the answer."""
        self.events.put((f"request-{number}", event))
        return self.answers.get(timeout=20)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RuntimeApi

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Return the next invocation, when there is one."""
        assert self.path == "/2018-06-01/runtime/invocation/next"
        request, event = self.server.events.get()
        body = json.dumps(event).encode()
        self.send_response(200)
        for name, value in (
            ("Lambda-Runtime-Aws-Request-Id", request),
            ("Lambda-Runtime-Deadline-Ms", str(int(time.time() * 1000) + 60_000)),
            ("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:of-the-copy:1:function:f"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Take an answer."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.answers.put((self.path.removeprefix("/2018-06-01/runtime/"), json.loads(body)))


@contextmanager
def serving() -> Iterator[RuntimeApi]:
    """Serve the Runtime API of one process."""
    api = RuntimeApi()
    thread = threading.Thread(target=api.serve_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.shutdown()
        thread.join()
        api.server_close()


@pytest.fixture(name="api")
def api_fixture() -> Iterator[RuntimeApi]:
    """Return a Runtime API that serves."""
    with serving() as api:
        yield api


@pytest.fixture(name="image", scope="module")
def image_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the working directory of an image with two functions and their snapshot."""
    place = tmp_path_factory.mktemp("image")
    (place / "app.py").write_text(APP, encoding="utf-8")
    (place / "other.py").write_text(OTHER, encoding="utf-8")
    command = [str(BIN / "libcriu-py"), "lambda-bootstrap", "--build", "app.handler", "other.handler"]
    done = subprocess.run(
        command, cwd=place, env=environment(**AT_BUILD), capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return place


class Function:
    """A function's process."""

    def __init__(self, image: Path, handler: str, api: RuntimeApi, *command: str) -> None:
        variables = {
            "AWS_LAMBDA_RUNTIME_API": api.address,
            "AWS_LAMBDA_FUNCTION_NAME": f"function-{handler}",
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
            "AWS_REGION": "of-the-copy",
            "AWS_DEFAULT_REGION": "of-the-copy",
            "AWS_ACCESS_KEY_ID": "of-the-copy",
            "AWS_SECRET_ACCESS_KEY": "of-the-copy-too",
            "LAMBDA_TASK_ROOT": str(image),
        }
        words = command or (str(BIN / "libcriu-py"), "lambda-bootstrap")
        self.output = image / "output"
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [*words, handler], cwd=image, env=environment(**variables), stdout=file, stderr=file
            )

    def __enter__(self) -> Function:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        """Return its output."""
        return self.output.read_text(encoding="utf-8")


def test_hundred_invocations(image: Path, api: RuntimeApi) -> None:
    """Address, credentials and region are those of the copy, and hooks of SnapStart run in it."""
    with Function(image, "app.handler", api) as function:
        for number in range(100):
            path, answer = api.invoke(number, {"number": number})
            assert path == f"invocation/request-{number}/response"
            assert answer == {
                "count": number + 1,
                "event": {"number": number},
                "id": f"request-{number}",
                "key": "of-the-copy",
                "region": "of-the-copy",
                "api": api.address,
                "name": "function-app.handler",
                "hooks": ["before", "of-the-copy"],
            }
        assert function.said() == ""


def test_two_functions_of_one_snapshot(image: Path, api: RuntimeApi) -> None:
    """The handler is an argument of the start."""
    with Function(image, "other.handler", api) as function:
        assert api.invoke(0, [1])[1] == {"other": [1]}
        assert function.said() == ""


def test_exception_is_as_conventional(image: Path) -> None:
    """It is reported with the same trace and log, and the process goes on."""
    found = []
    for command in ((str(BIN / "python"), "-m", "awslambdaric"), ()):
        with serving() as api, Function(image, "app.handler", api, *command) as function:
            answers = [api.invoke(0, "raise"), api.invoke(1, "next")]
            logged = json.loads(function.said().splitlines()[0])
            del logged["timestamp"], answers[1][1]["hooks"], answers[1][1]["api"]
            found.append((answers, logged))
    assert found[0] == found[1]


def test_handler_that_is_not_there(image: Path, api: RuntimeApi) -> None:
    """The error of the start is told to the API, and the process ends."""
    with Function(image, "app.absent", api) as function:
        path, answer = api.answers.get(timeout=20)
        assert (path, answer["errorType"]) == ("init/error", "Runtime.HandlerNotFound")
        assert function.process.wait(30) == 1


def test_without_a_snapshot(image: Path, api: RuntimeApi, tmp_path: Path) -> None:
    """It starts conventionally, and says so."""
    (tmp_path / "other.py").write_text(OTHER, encoding="utf-8")
    with Function(tmp_path, "other.handler", api) as function:
        assert api.invoke(0, 1)[1] == {"other": 1}
        assert "starting conventionally: no lambda.snap" in function.said()


def test_snapshot_is_for_any_user(image: Path) -> None:
    """Lambda's user is another than that of the image, and may read it, and nobody may change it."""
    snapshot = image / "lambda.snap"
    for path in (snapshot, *snapshot.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)
