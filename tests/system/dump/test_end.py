"""What the original does between its dump and its end: nothing that its copies do too."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.system.conftest import by_criu
from tests.system.selfdump import take

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

THREAD = """
import os, threading, time
from libcriu_py import checkpoint
NUMBER = 0
ready = threading.Event()
def send():
    global NUMBER
    while True:
        NUMBER += 1
        with open("sent", "a") as file:
            file.write(f"{dict(os.environ).get('COPY', 'original')} {NUMBER}\\n")
        ready.set()
        time.sleep(0.001)
with checkpoint():
    threading.Thread(target=send, daemon=True).start()
    memory = bytearray(os.urandom(1 << 20)) * 64
    ready.wait()
reached = NUMBER + 20
while NUMBER < reached:
    time.sleep(0.001)
"""
CHILD = """
import os, subprocess, sys
from libcriu_py import checkpoint
with checkpoint():
    memory = bytearray(os.urandom(1 << 20)) * 64
    code = "import itertools, time\\nfor n in itertools.count(1): print(n, flush=True); time.sleep(0.001)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=open("sent", "ab"), cwd=os.getcwd())
    while not os.path.getsize("sent"):
        pass
size = os.path.getsize(f"{sys.argv[1]}/sent")
while os.path.getsize(f"{sys.argv[1]}/sent") < size + 200:
    pass
child.kill()
child.wait()
"""


def test_threads_do_nothing_twice(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """A copy goes on with the number after the last one that the original has sent."""
    directory = directory_of(mode.account)
    dump = take(mode, directory, THREAD, cwd=directory)
    done = dump.run(env={"COPY": "copy"}, cwd=directory)
    assert done.returncode == 0, done.stderr
    sent = [line.split() for line in (directory / "sent").read_text().splitlines()]
    numbers = {who: [int(number) for name, number in sent if name == who] for who in ("original", "copy")}
    assert numbers["copy"][0] == numbers["original"][-1] + 1
    assert len(numbers["copy"]) >= 20


@by_criu
def test_children_do_nothing_twice(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """They are stopped before the dump, and go on in copies."""
    directory = directory_of(mode.account)
    dump = take(mode, directory, CHILD, cwd=directory)
    before = [int(number) for number in (directory / "sent").read_text().split()]
    time.sleep(0.1)
    assert [int(number) for number in (directory / "sent").read_text().split()] == before
    done = dump.run(str(directory), cwd=directory)
    assert done.returncode == 0, done.stderr
    sent = [int(number) for number in (directory / "sent").read_text().split()]
    assert sent == [*range(1, len(sent) + 1)]
    assert len(sent) > len(before)
