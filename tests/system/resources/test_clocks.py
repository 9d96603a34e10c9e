"""Clocks of copies, and waits with a time limit that were under way at the dump."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

from tests.system.pairs import both
from tests.system.selfdump import take

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode
    from tests.system.selfdump import SelfDump

    Directories = Callable[[Account], Path]

UPTIME = 5
"""Seconds since the simulated reboot."""
WAIT = 1.5
WAITS = """
import concurrent.futures, json, queue, select, sched, socket, sys, threading, time
from libcriu_py import checkpoint, clock

WAIT = float(sys.argv[1])
near, far = socket.socketpair()
poll, epoll, condition = select.poll(), select.epoll(), threading.Condition()
poll.register(near, select.POLLIN)
epoll.register(near, select.EPOLLIN)
fired, started = {}, threading.Semaphore(0)

def quietly(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except (queue.Empty, concurrent.futures.TimeoutError):
        pass

def wait_for_condition():
    with condition:
        condition.wait(WAIT)

def schedule():
    scheduler = sched.scheduler()
    scheduler.enter(WAIT, 0, lambda: None)
    scheduler.run()

WAITS = {
    "Lock.acquire": lambda: held.acquire(timeout=WAIT),
    "Event.wait": lambda: threading.Event().wait(WAIT),
    "Condition.wait": wait_for_condition,
    "sleep": lambda: time.sleep(WAIT),
    "Queue.get": lambda: quietly(queue.Queue().get, timeout=WAIT),
    "SimpleQueue.get": lambda: quietly(queue.SimpleQueue().get, timeout=WAIT),
    "Future.result": lambda: quietly(concurrent.futures.Future().result, WAIT),
    "wait": lambda: concurrent.futures.wait([concurrent.futures.Future()], WAIT),
    "sched": schedule,
    "select": lambda: select.select([near], [], [], WAIT),
    "poll": lambda: poll.poll(WAIT * 1000),
    "epoll": lambda: epoll.poll(WAIT),
}
held = threading.Lock()
held.acquire()

def run(name):
    started.release()
    WAITS[name]()
    fired[name] = time.time()

for name in WAITS:
    threading.Thread(target=run, args=(name,), daemon=True).start()
timer = threading.Timer(WAIT, lambda: fired.update({"Timer": time.time()}))
timer.daemon = True
timer.start()
for _ in WAITS:
    started.acquire()
before, ours = time.monotonic(), clock.monotonic()
with checkpoint() as snap:
    pass
start, jump, ours = time.time(), time.monotonic() - before, clock.monotonic() - ours
while len(fired) <= len(WAITS) and time.time() < start + WAIT + 2:
    time.sleep(0.01)
print(json.dumps({
    "jump": jump, "ours": ours, "downtime": snap.downtime, "waits": sorted([*WAITS, "Timer"]),
    "after": {name: when - start for name, when in fired.items()},
}))
"""
"""A program with every wait of the standard library under way in a thread."""


def rebooted(dump: SelfDump, *args: str) -> str:
    """Run a copy where the monotonic clocks have only just begun, as they do at a boot; returns what it has printed."""
    mode = dump.mode
    offset = str(UPTIME - int(time.clock_gettime(time.CLOCK_BOOTTIME)))
    argv: list[str] = ["/usr/bin/unshare", "--time", "--monotonic", offset, "--boottime", offset]
    if os.geteuid() != 0:
        argv.append("--map-current-user")
    elif not mode.account.is_self:
        argv += ["/usr/bin/setpriv", f"--reuid={mode.account.uid}", f"--regid={mode.account.gid}", "--clear-groups"]
    argv += [str(mode.account.python), "-m", "libcriu_py", "run", "--no-fallback", str(dump.path), "--", *args]
    env = mode.account.environment(**mode.env)
    return subprocess.run(argv, env=env, cwd=mode.account.home, check=True, stdout=subprocess.PIPE, text=True).stdout


def wait_until(dump: SelfDump, seconds: float) -> None:
    """Let some time go by since the dump; it is the time itself that is tested."""
    taken = json.loads((dump.path / "manifest.json").read_text())["created"]
    time.sleep(max(0.0, taken + seconds - time.time()))


def test_waits_of_threads(mode: Mode, directory_of: Directories) -> None:
    """
    A wait with a time limit has as long to go in a copy as it had at the dump, after a reboot too.

    With a file-capable criu there is no time namespace: there all end at once, or late after a reboot.
    """
    dump = take(mode, directory_of(mode.account), WAITS, str(WAIT))
    wait_until(dump, WAIT + 0.5)
    later: dict[str, Any] = json.loads(dump.run(str(WAIT)).stdout)
    # One after the other: a copy whose pid is taken moves to namespaces of its own, in each mode.
    booted: dict[str, Any] = json.loads(rebooted(dump, str(WAIT)))
    for seen in (later, booted):
        assert seen["downtime"] > WAIT
        assert 0 < seen["ours"] < WAIT  # libcriu_py.clock.monotonic()
    if mode.name == "capability":
        assert later["jump"] > later["downtime"] - 0.5  # and the time that the dump took
        assert later["after"]["sleep"] < 0.3
        assert booted["jump"] < 0
        assert "sleep" not in booted["after"]
        return
    for seen in (later, booted):
        assert 0 < seen["jump"] < WAIT
        assert sorted(seen["after"]) == seen["waits"]
        assert min(seen["after"].values()) > WAIT - seen["jump"] - 0.3
        assert max(seen["after"].values()) < WAIT + 1.5  # what a busy machine takes besides


def test_timers_of_uvloop(own_account: Account, directory_of: Directories) -> None:
    """So it is with the timers of a loop that keeps them in C."""
    from tests.system.conftest import Mode

    code = """
    import asyncio, json, sys, time
    import uvloop
    from libcriu_py import checkpoint
    async def main():
        fired = asyncio.Event()
        asyncio.get_running_loop().call_later(float(sys.argv[1]), fired.set)
        async with checkpoint():
            pass
        start, early = time.time(), fired.is_set()
        await fired.wait()
        print(json.dumps([early, time.time() - start]))
    loop = uvloop.new_event_loop()
    loop.run_until_complete(main())
    """
    env = {"UV_USE_IO_URING": "0"}
    dump = take(Mode("root", "root", own_account), directory_of(own_account), code, str(WAIT), env=env)
    wait_until(dump, WAIT + 0.5)
    early, waited = json.loads(dump.run(str(WAIT)).stdout)
    assert not early
    assert 0.3 < waited < WAIT + 0.5


def test_clocks_of_the_machine(mode: Mode, directory_of: Directories) -> None:
    """Where the program wants the machine's monotonic clock, a copy has it."""
    code = """
    import json, os, time
    from libcriu_py import checkpoint
    with checkpoint(resources={"clock": {"host": True}}):
        pass
    print(json.dumps([time.monotonic(), os.readlink("/proc/self/ns/time")]))
    """
    dump = take(mode, directory_of(mode.account), code)
    for now, namespace in both(dump):
        assert time.monotonic() - 10 < now < time.monotonic()
        assert namespace == os.readlink("/proc/self/ns/time")
