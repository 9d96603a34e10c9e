"""Threads that stand still change nothing, however late they come to run again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.system.native.conftest import Run

BEFORE = """
import shutil

def run_rarely():
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
    while True:
        time.sleep(0.0003)

busy, parent = [], os.getpid()
for _ in range(os.cpu_count() + 1):
    pid = os.fork()
    while not pid:
        if os.getppid() != parent:
            os._exit(0)
    busy.append(pid)
for _ in range(16):
    pid = os.fork()
    if not pid:
        for _ in range(8):
            threading.Thread(target=run_rarely, daemon=True).start()
        break
    _, status = os.waitpid(pid, 0)
    assert status == 0
    shutil.rmtree(os.path.join(os.path.dirname(sys.argv[0]), "snap"))
else:
    for pid in busy:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
"""


def test_thread_preempted_while_it_parks_changes_nothing(dump: Run) -> None:
    """Neither its stack nor what the kernel notes for it, while the others write memory: the dump was refused."""
    assert dump(BEFORE, "print('ran')").copy() == "ran\n"
