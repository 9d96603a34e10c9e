"""
A program that leaves something to its end: exit_program.py HOW KIND DIRECTORY, where files are made in DIRECTORY.

HOW is `normal`, `function` (the program ends by `run_and_exit_fast`) or `interpreter` (by `end_fast_at_exit`); KIND
is the name of one of the functions below, or `all` for those that go together.
"""

from __future__ import annotations

import atexit
import importlib
import io
import multiprocessing
import os
import shelve
import shutil
import signal
import sqlite3
import sys
import tarfile
import tempfile
import time
import wave
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT: list[Any] = []
"""What is alive when the program ends."""


def temporary(out: Path) -> None:
    """Have temporary files and directories of every kind."""
    tempfile.tempdir = str(out)
    KEPT.append(tempfile.TemporaryDirectory(prefix="directory-"))
    for prefix, delete in (("removed-", True), ("left-", False)):
        file = tempfile.NamedTemporaryFile("w", prefix=prefix, delete=delete)  # noqa: SIM115
        file.write("text that is still in the buffer")
        KEPT.append(file)
    KEPT.append(tempfile.TemporaryFile())  # noqa: SIM115
    atexit.register(shutil.rmtree, tempfile.mkdtemp(prefix="atexit-"))


def archives(out: Path) -> None:
    """Have files of the standard library that are complete only when they are closed."""
    zipped = zipfile.ZipFile(out / "zip", "w")
    zipped.writestr("name", "text")
    tarred = tarfile.open(out / "tar", "w")  # noqa: SIM115
    tarred.addfile(tarfile.TarInfo("name"))
    sound = wave.open(str(out / "wave"), "wb")  # noqa: SIM115
    sound.setparams((1, 2, 8000, 0, "NONE", ""))
    sound.writeframesraw(bytes(100))
    KEPT.extend([zipped, tarred, sound])


def databases(out: Path) -> None:
    """Have databases with changes that are not written, or not committed."""
    shelf = shelve.open(str(out / "shelf"), writeback=True)  # noqa: S301, SIM115
    shelf["list"] = [1]
    shelf["list"].append(2)
    connection = sqlite3.connect(out / "sqlite")
    connection.execute("create table numbers (number)")
    connection.commit()
    connection.execute("insert into numbers values (1)")
    KEPT.extend([shelf, connection])


def children(out: Path) -> None:
    """Have children that are to be waited for, and one that is to be ended."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    context.Process(target=lambda: (out / "fed").write_text(str(len(queue.get())), encoding="ascii")).start()
    queue.put("x" * 1_000_000)
    daemon = context.Process(target=time.sleep, args=(100,), daemon=True)
    daemon.start()
    (out / "daemon").write_text(str(daemon.pid), encoding="ascii")
    pool = context.Pool(2)
    executor = ProcessPoolExecutor(1, mp_context=context)
    executor.submit(os.mkdir, out / "by an executor")
    KEPT.extend([queue, pool, pool.map(abs, [1, -2]), executor])


def tracked(out: Path) -> None:
    """Have what the resource tracker removes: it has the standard error, and so whoever reads that waits for it."""
    memory = shared_memory.SharedMemory(create=True, size=100)
    (out / "shared").write_text(memory.name, encoding="ascii")
    KEPT.extend([memory, multiprocessing.get_context("spawn").Lock(), multiprocessing.Manager().list([1])])


def interpreters(out: Path) -> None:
    """Have a sub-interpreter with functions to run at its end."""
    module = importlib.import_module("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
    code = f"import atexit; kept = open({str(out / 'sub')!r}, 'w'); kept.write('text'); atexit.register(kept.close)"
    KEPT.append(module.create())
    module.run_string(KEPT[-1], code)


def views(out: Path) -> None:
    """Have a file in memory with a view of it, which cannot be closed, and one behind it, which can."""
    memory = io.BytesIO(b"content")
    file = (out / "behind").open("w", encoding="utf-8")
    file.write("text")
    KEPT.extend([memory, memory.getbuffer(), file])


def signalled(_out: Path) -> None:
    """End by a signal's handler, as servers do."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    os.kill(os.getpid(), signal.SIGTERM)


KINDS: dict[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (temporary, archives, databases, children, tracked, interpreters, views, signalled)
}


def main() -> None:
    """Do what the command line says."""
    out = Path(sys.argv[3])
    for name, function in KINDS.items():
        # With a sub-interpreter Python 3.11 itself forgets the status of a SystemExit.
        if sys.argv[2] == name or (sys.argv[2] == "all" and function is not signalled):
            function(out)
    print("at the end")


if __name__ == "__main__":
    if os.environ.get("CHECKPOINT"):
        from libcriu_py import checkpoint

        with checkpoint(exit="fast"):
            pass
    if sys.argv[1:2] == ["function"]:
        from libcriu_py.exit import run_and_exit_fast

        run_and_exit_fast(main)
    if sys.argv[1:2] == ["interpreter"]:
        from libcriu_py.exit import end_fast_at_exit

        end_fast_at_exit()
    main()
