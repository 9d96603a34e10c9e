"""Rules for descriptors: closed, replaced, reopened or refused before a dump."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.system.conftest import by_criu
from tests.system.selfdump import start, take, write_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]

CODE = """
import json, os, socket, sys
from libcriu_py import checkpoint
where = sys.argv[1]
log, data = open(where + "/app.log", "w"), open(where + "/data", "rb")
server = socket.create_server(("127.0.0.1", 0))
connected = socket.create_connection(server.getsockname())
inner = server.accept()[0]
data.read(3), log.write("one\\n"), log.flush()
data.seek(3)
RULES
with checkpoint(resources={"fds": settings}):
    pass
log.write("copy\\n")
log.flush()
print(json.dumps([os.readlink(f"/proc/self/fd/{fd}") if os.path.lexists(f"/proc/self/fd/{fd}") else None
                  for fd in (connected.fileno(), inner.fileno())] + [data.read().decode()]))
"""
RULES = [
    {"action": "reopen", "match": "*.log"},
    {"action": "reopen", "kind": "file", "match": "*/data"},
    {"action": "ignore", "kind": "TCP listener"},
    {"action": "null", "kind": "TCP *", "match": "*:* to *"},
]


@by_criu
def test_rules_in_code_and_in_toml(mode: Mode, directory_of: Directories) -> None:
    """The first rule that fits counts; a reopened log appends, a reopened input goes on where it was."""
    directory = directory_of(mode.account)
    (directory / "data").write_text("abcdef")
    (directory / "pyproject.toml").write_text(
        "".join(
            "[[tool.libcriu_py.fds]]\n" + "".join(f'{name} = "{value}"\n' for name, value in rule.items())
            for rule in RULES
        )
    )
    for name, settings in (
        ("code", f"settings = {{'rules': {RULES}}}"),
        ("toml", "settings = {'config': where + '/pyproject.toml'}"),
    ):
        dump = take(mode, directory, CODE.replace("RULES", settings), str(directory), name=name)
        with (directory / "app.log").open("a") as log:
            log.write("grown\n")
        done = dump.run(str(directory))
        assert json.loads(done.stdout or "null") == ["/dev/null", "/dev/null", "def"], done.stderr
        assert (directory / "app.log").read_text() == "one\ngrown\ncopy\n"


def test_rule_that_refuses(mode: Mode, directory_of: Directories) -> None:
    """The action "error" refuses the dump with all that it is for; a wrong rule is refused too."""
    directory = directory_of(mode.account)
    (directory / "data").write_text("abcdef")
    for rule, expected in (
        ({"action": "error", "kind": "file"}, "a rule refuses a dump with file "),
        ({"action": "shut"}, "is no rule for descriptors"),
    ):
        script = write_program(mode, directory, CODE.replace("RULES", f"settings = {{'rules': [{rule}]}}"))
        done = start(mode, script, directory / "snap", str(directory))
        assert expected in done.stderr
        assert not (directory / "snap").exists()
