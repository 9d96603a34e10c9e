"""Socket units: the first connection starts the server, and it ends when it is idle."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from tests.integrations.serving import BIN, ask, environment, free_port, take
from tests.integrations.systemd import Manager
from tests.integrations.test_servers import write

EXAMPLES = Path(__file__).parents[2] / "examples" / "scale-from-zero"
STARTS = 100


@pytest.fixture(name="site", scope="module")
def site_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with applications, and snapshots of servers for them."""
    place = write(tmp_path_factory.mktemp("site"))
    port = free_port()
    idle = ["-m", "libcriu_py.integrations.idle", "60", "app:app", "--port", port]
    take(place / "web.snap", "--exit", "fast", "--learn-until", port, *idle, cwd=place)
    gunicorn = ["gunicorn", "wsgi:app", "-b", f"127.0.0.1:{port}"]
    take(place / "gunicorn.snap", "--exit", "fast", "--learn-until", port, *gunicorn, cwd=place)
    return place


def units(site: Path, command: str, port: int) -> Manager:
    """Return a stand-in for systemd with the units of the example, for other places and another command."""
    socket_text = (EXAMPLES / "web.socket").read_text(encoding="utf-8")
    service_text = (EXAMPLES / "web.service").read_text(encoding="utf-8")
    own = "run web.snap 60 app:app --fd 3"
    assert own in service_text
    (site / "web.socket").write_text(socket_text.replace(":8000", f":{port}"), encoding="utf-8")
    (site / "web.service").write_text(
        service_text.replace("/srv/web/.venv/bin", str(BIN)).replace("/srv/web", str(site)).replace(own, command),
        encoding="utf-8",
    )
    return Manager(site / "web.socket", site / "web.service", environment(), site / "log")


def test_no_request_is_lost(site: Path) -> None:
    """Requests that come at any time, also while the server is about to end, are answered: over a hundred starts."""
    port = free_port()
    rng = random.Random(17)
    pids: set[int] = set()
    with units(site, "run web.snap 0.1 app:app --fd 3", port) as manager:
        deadline = time.monotonic() + 100
        while len(manager.starts) < STARTS and time.monotonic() < deadline:
            pids.add(ask(port)["pid"])
            time.sleep(rng.uniform(0.05, 0.45))
    assert len(manager.starts) >= STARTS
    assert pids == {*manager.starts}
    assert {*manager.statuses[:-1]} == {0}
    assert "starting conventionally" not in (site / "log").read_text(encoding="utf-8")


def test_connections_that_come_at_once(site: Path) -> None:
    """They wait in the queue of the socket while the server starts, and one start answers all."""
    port = free_port()
    answers: list[int] = []
    with units(site, "run web.snap 5 app:app --fd 3", port) as manager:
        threads = [threading.Thread(target=lambda: answers.append(ask(port)["pid"])) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(manager.starts) == 1
    assert answers == manager.starts * 50


def test_server_that_asks_for_the_sockets_itself(site: Path) -> None:
    """By LISTEN_FDS, gunicorn takes the socket where LISTEN_PID names its process: it listens on no other."""
    port = free_port()
    with units(site, "run gunicorn.snap wsgi:app", port) as manager:
        assert ask(port)["version"] == 1
    said = (site / "log").read_text(encoding="utf-8")
    assert f"Listening at: http://127.0.0.1:{port} ({manager.starts[0]})" in said
    assert "starting conventionally" not in said
