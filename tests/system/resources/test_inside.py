"""What the interpreter and its libraries keep: descriptors for signals and faults, helper processes, history."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import NATIVE, by_criu
from tests.system.pairs import both
from tests.system.selfdump import take

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]


def test_wakeup_descriptor_of_signals(mode: Mode, directory_of: Directories) -> None:
    """A signal in a copy is written to the descriptor that the program set for it, and handled by an event loop."""
    code = """
    import asyncio, json, os, signal, socket
    from libcriu_py import checkpoint
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.fileno())
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    with checkpoint():
        pass
    os.kill(os.getpid(), signal.SIGUSR1)
    seen = list(reading.recv(10))
    async def main():
        got = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR2, got.set)
        async with checkpoint(engine="simulate"):
            os.kill(os.getpid(), signal.SIGUSR2)
        await asyncio.wait_for(got.wait(), 10)
        return "handled"
    print(json.dumps([seen, asyncio.run(main())]))
    """
    assert both(take(mode, directory_of(mode.account), code)) == [[[10], "handled"]] * 2


def test_signal_handlers_of_a_running_loop(mode: Mode, directory_of: Directories) -> None:
    """So it is in a loop that was running at the dump."""
    code = """
    import asyncio, json, os, signal
    from libcriu_py import checkpoint
    async def main():
        got = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, got.set)
        async with checkpoint():
            pass
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(got.wait(), 10)
        return "handled"
    print(json.dumps(asyncio.run(main())))
    """
    assert both(take(mode, directory_of(mode.account), code)) == ["handled"] * 2


@pytest.mark.parametrize("where", ["stderr", "file"])
def test_faults_are_reported(where: str, mode: Mode, directory_of: Directories) -> None:
    """Reports of faulthandler go to the copy's own stderr, or to the file that it was given."""
    directory = directory_of(mode.account)
    target = "sys.stderr" if where == "stderr" else "open(sys.argv[1], 'w')"
    code = f"""
    import faulthandler, os, signal, sys
    from libcriu_py import checkpoint
    target = {target}
    faulthandler.enable(target)
    faulthandler.register(signal.SIGUSR1, target)
    with checkpoint():
        pass
    os.kill(os.getpid(), signal.SIGUSR1)
    sys.stderr.flush()
    os.abort()
    """
    dump = take(mode, directory, code, str(directory / "faults"))
    done = dump.run(str(directory / "faults"))
    assert done.returncode in {-6, 128 + 6}, done
    text = done.stderr if where == "stderr" else (directory / "faults").read_text()
    assert "Current thread" in text
    assert "Fatal Python error: Aborted" in text


def test_timed_tracebacks_come_later(mode: Mode, directory_of: Directories) -> None:
    """A traceback that faulthandler was to write after some time has as long to go in a copy, and may be called off."""
    code = """
    import faulthandler, json, sys, time
    from libcriu_py import checkpoint
    faulthandler.dump_traceback_later(1, exit=False)
    with checkpoint():
        pass
    time.sleep(1.5)
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps("here"))
    """
    done = take(mode, directory_of(mode.account), code).run()
    assert json.loads(done.stdout) == "here"
    assert "Timeout (0:00:01)!" in done.stderr


HELPERS = """
import json, multiprocessing, os, sys
from multiprocessing import forkserver, resource_tracker, shared_memory
from libcriu_py import checkpoint

def square(number):
    return number * number

if __name__ == "__main__":
    quiet = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(quiet, number)
    context = multiprocessing.get_context("forkserver")
    kept = shared_memory.SharedMemory(create=True, size=100)
    kept.buf[0] = 7
    resource_tracker.ensure_running()
    forkserver.ensure_running()
    old = resource_tracker._resource_tracker._pid, forkserver._forkserver._forkserver_pid
    shared = {"fds": {"rules": [{"action": "ignore", "kind": "shared memory"}]}}
    with checkpoint(resources=shared):
        gone = sys.argv[1] == "gone"
        if gone:
            kept.close()
            kept.unlink()
            forkserver._forkserver._stop()
            resource_tracker._resource_tracker._stop()
    with context.Pool(2) as pool:
        squares = pool.map(square, range(4))
    more = shared_memory.SharedMemory(create=True, size=100)
    more.close()
    more.unlink()
    new = resource_tracker._resource_tracker._pid, forkserver._forkserver._forkserver_pid
    first = 7 if gone else kept.buf[0]
    if not gone:
        kept.close()
        kept.unlink()
    forkserver._forkserver._stop()
    print(json.dumps([squares, first, [a == b for a, b in zip(old, new)]]), flush=True)
"""


@pytest.mark.parametrize("state", ["running", "gone"])
@by_criu
def test_helpers_of_multiprocessing(state: str, mode: Mode, directory_of: Directories) -> None:
    """Resource tracker and fork server come back with the image, or are started again where they had ended."""
    dump = take(mode, directory_of(mode.account), HELPERS, state)
    done = dump.run(state)
    assert done.stdout, done.stderr
    squares, first, same = json.loads(done.stdout)
    assert (squares, first) == ([0, 1, 4, 9], 7)
    assert same == [state == "running"] * 2


def test_history_of_readline(mode: Mode, directory_of: Directories) -> None:
    """The history that was read is there in each copy, and a copy can add to its own and write it."""
    code = """
    import json, readline, sys
    from libcriu_py import checkpoint
    readline.add_history("before")
    with checkpoint():
        pass
    readline.add_history(sys.argv[1])
    lines = [readline.get_history_item(place) for place in range(1, readline.get_current_history_length() + 1)]
    print(json.dumps(lines))
    """
    assert both(take(mode, directory_of(mode.account), code), "after") == [["before", "after"]] * 2


def test_translations(mode: Mode, directory_of: Directories) -> None:
    """The language is looked up of the new environment with each call of a function of gettext."""
    code = """
    import gettext, json, os, struct, sys
    from libcriu_py import checkpoint
    def write(language, text):
        # The format of msgfmt: magic, revision, number, offsets of both tables, their entries, strings.
        source, header = b"hello", b"Content-Type: text/plain; charset=UTF-8\\n"
        texts = [(b"", header), (source, text.encode())]
        place, table, data = 28 + 16 * len(texts), [[], []], b""
        for column in (0, 1):
            for pair in texts:
                table[column] += [len(pair[column]), place + len(data)]
                data += pair[column] + b"\\0"
        head = struct.pack("<7I", 0x950412DE, 0, len(texts), 28, 28 + 8 * len(texts), 0, 0)
        path = f"{sys.argv[1]}/{language}/LC_MESSAGES"
        os.makedirs(path)
        with open(f"{path}/program.mo", "wb") as file:
            file.write(head + struct.pack(f"<{4 * len(texts)}I", *table[0], *table[1]) + data)
    write("de", "hallo")
    write("fr", "bonjour")
    gettext.bindtextdomain("program", sys.argv[1])
    gettext.textdomain("program")
    before = gettext.gettext("hello")
    with checkpoint():
        pass
    print(json.dumps([before, gettext.gettext("hello")]))
    """
    directory = directory_of(mode.account)
    dump = take(mode, directory, code, str(directory), env={"LANGUAGE": "de"})
    assert json.loads(dump.run(env={"LANGUAGE": "fr"}).stdout) == ["hallo", "bonjour"]


def test_identity(mode: Mode, directory_of: Directories) -> None:
    """What tells who a process is, and in which time zone, tells the same as the kernel and the new environment."""
    code = """
    import datetime, json, logging, multiprocessing, os, sys, threading, time
    from libcriu_py import checkpoint
    records = []
    class Handler(logging.Handler):
        def emit(self, record):
            records.append(record)
    logging.getLogger().addHandler(Handler())
    def look():
        logging.warning("x")
        record = records[-1]
        with open("/proc/self/stat") as stat:
            pid = int(stat.read().split()[0])
        return {
            "pids": len({pid, os.getpid(), record.process, multiprocessing.current_process().pid}),
            "names": [record.processName, record.threadName, multiprocessing.current_process().name],
            "native": threading.get_native_id() == threading.main_thread().native_id == pid,
            "executable": os.path.samefile("/proc/self/exe", os.path.realpath(sys.executable)),
            "zone": [time.tzname[0], datetime.datetime.now().astimezone().utcoffset().seconds],
        }
    with checkpoint():
        before = look()
    print(json.dumps([before, look()]))
    """
    dump = take(mode, directory_of(mode.account), code, env={"TZ": "AAA-1"})
    expected = {
        "pids": 1,
        "names": ["MainProcess", "MainThread", "MainProcess"],
        "native": True,
        "executable": True,
    }
    before, after = json.loads(dump.run(env={"TZ": "BBB-2"}).stdout)
    assert before == {**expected, "zone": ["AAA", 3600]}
    # The launcher has become a native copy, and stays the file that was executed (docs/engines.md).
    assert after == {**expected, "executable": mode.name != NATIVE, "zone": ["BBB", 7200]}
