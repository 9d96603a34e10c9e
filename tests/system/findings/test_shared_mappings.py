"""Files that copies would write into one another's memory by: refused in /dev/shm, told elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.system.pairs import two_copies
from tests.system.selfdump import start, write_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]

PROGRAM = """
import json, os, sys
from multiprocessing import resource_tracker, shared_memory
if os.environ["LIBCRIU_PY_ENGINE"] == "native":  # which dumps no children, such as the tracker
    resource_tracker.register = resource_tracker.unregister = lambda *_: None
from libcriu_py import checkpoint
memory = shared_memory.SharedMemory(create=True, size=4096)
print(memory.name, flush=True)
try:
    with checkpoint(resources=json.loads(os.environ.get("RULES", "null"))):
        pass
except BaseException:
    memory.unlink()
    raise
"""


def test_shared_memory_is_refused(mode: Mode, directory_of: Directories) -> None:
    """A copy would have the memory of all others: no snapshot is made, and the message says what to do."""
    directory = directory_of(mode.account)
    done = start(mode, write_program(mode, directory, PROGRAM), directory / "snap")
    name = done.stdout.split()[0]
    assert f"shared memory /dev/shm/{name}: every copy would have this very memory" in done.stderr
    assert 'action = "ignore"' in done.stderr
    assert not (directory / "snap").exists()


def test_shared_memory_that_is_meant_is_shared(mode: Mode, directory_of: Directories) -> None:
    """Where a rule allows it, two copies see what each of them writes."""
    code = (
        PROGRAM
        + """
memory.buf[0] += 1
import time
deadline = time.monotonic() + 20
while memory.buf[0] < 2 and time.monotonic() < deadline:
    time.sleep(0.001)
print(json.dumps(memory.buf[0]), flush=True)
os._exit(0)
"""
    )
    rules = {"fds": {"rules": [{"action": "ignore", "kind": "shared memory", "match": "/dev/shm/psm_*"}]}}
    directory = directory_of(mode.account)
    assert two_copies(mode, directory, code, env={"RULES": json.dumps(rules), "LIBCRIU_PY_ENV_CHECK": "off"}) == [2, 2]


def test_other_shared_mappings_are_told(mode: Mode, directory_of: Directories) -> None:
    """They are named in one line, unless a rule refuses them; what is read only, private or anonymous is not."""
    directory = directory_of(mode.account)
    (directory / "state.py").write_text(
        """
import mmap, sys
kept = []
for number, access in enumerate((mmap.ACCESS_WRITE, mmap.ACCESS_READ, mmap.ACCESS_COPY)):
    with open(f"{sys.path[0]}/file{number}", "w+b") as file:
        file.truncate(4096)
        kept.append(mmap.mmap(file.fileno(), 4096, access=access))
kept.append(mmap.mmap(-1, 4096))
""",
        encoding="utf-8",
    )
    script = write_program(mode, directory, "import state\n")
    done = start(mode, script, directory / "snap", own=False)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "write into" in line)
    assert f"{directory}/file0; map such in the copies" in line
    rules = directory / "rules.toml"
    rules.write_text('[[tool.libcriu_py.fds]]\nkind = "shared mapping"\naction = "error"\n', encoding="utf-8")
    mode.account.give(rules)
    refused = start(mode, script, directory / "no", own=False, env={"LIBCRIU_PY_CONFIG": str(rules)})
    assert f"1. shared mapping {directory}/file0: every copy writes into this very file" in refused.stderr
    assert not (directory / "no").exists()
