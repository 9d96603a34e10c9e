"""What a process has changed of itself is found by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHANGES = {
    "nothing": ("pass", "None"),
    "no_new_privs": ("ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)", "capabilities"),
    "session": ("os.setsid()", "session"),
    "one thread": ("start(filtered)", "seccomp filters in one thread"),
    "all": ("filtered()", "seccomp filters"),
}
CODE = """
import ctypes, os, struct, threading, time
from libcriu_py.dump import changes

def filtered():
    program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))   # allow all
    rule = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 1, ctypes.addressof(program)))
    assert ctypes.CDLL(None).prctl(22, 2, rule, 0, 0) == 0

def start(function):
    done = threading.Event()
    threading.Thread(target=lambda: (function(), done.set(), time.sleep(60)), daemon=True).start()
    done.wait()

ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) if {early} else None
changes.note()
{change}
print(changes.found(), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("name", CHANGES)
def test_what_has_changed(name: str) -> None:
    """It is compared with what was noted first; a filter needs NO_NEW_PRIVS where the user has no rights."""
    change, expected = CHANGES[name]
    code = CODE.format(change=change, early=name in {"one thread", "all"})
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, start_new_session=False
    )
    assert (done.stdout, done.stderr) == (f"{expected}\n", "")
