"""The process that publishes a snapshot begins when the block is left, and is never left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.native.conftest import Run

AT_HOOK = """
import libcriu_py

def children():
    return [int(pid) for task in os.listdir("/proc/self/task")
            for pid in open(f"/proc/self/task/{task}/children").read().split()]

def left():
    return len(children()), sorted(os.listdir("/proc/self/fd"))

before = left()
action = {action!r}
is_first = [True]

@libcriu_py.before_checkpoint
def act():
    if is_first and is_first.pop():
        exec(action)

try:
    with checkpoint(sys.argv[0] + ".failed", then={then!r}, engine="native"):
        pass
except Exception as error:
    print(type(error).__name__, error, file=sys.stderr)
assert left() == before, (left(), before)
assert not os.path.exists(sys.argv[0] + ".failed")
"""


@pytest.mark.parametrize("then", ["exit", "continue"])
@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("raise LookupError('no')", "HookError"),
        ("os.kill(children()[0], 9)", "CheckpointError the native dump failed: the process that publishes it ended"),
        ("act.pipe = os.pipe2(os.O_DIRECT); os.write(act.pipe[1], b'x')", "has a pipe of packets"),
    ],
)
def test_nothing_is_left_of_a_dump_that_fails(action: str, said: str, then: str, dump: Run) -> None:
    """Neither a process nor a descriptor: of a hook that fails, a publisher that is killed, a refusal."""
    before = AT_HOOK.replace("{action!r}", repr(action)).replace("{then!r}", repr(then))
    after_refusal = "\nfor fd in getattr(act, 'pipe', ()): os.close(fd)\n"
    before = before.replace("\nassert left()", f"{after_refusal}assert left()")
    outcome = dump(before, "print('ran')")
    assert said in outcome.errors
    assert outcome.start().stdout == "ran\n"


def test_program_waits_for_no_publisher(dump: Run) -> None:
    """A hook that waits for any child finds none."""
    before = """
        import libcriu_py

        @libcriu_py.before_checkpoint
        def wait():
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                print("no child", flush=True)
        """
    outcome = dump(before, "print('ran')")
    assert outcome.output == "no child\n"
    assert outcome.copy() == "ran\n"


def test_publisher_ends_with_the_twin(dump: Run) -> None:
    """Where the twin is killed that stands for the process, the dump fails at once, and the process goes on."""
    before = """
        import libcriu_py
        held = bytearray(os.urandom(1 << 20) * 300)

        def kill_twin():
            while not os.path.exists(sys.argv[0] + ".failed/memory.img"):
                time.sleep(0.0003)
            while True:
                for task in os.listdir("/proc/self/task"):
                    for pid in open(f"/proc/self/task/{task}/children").read().split():
                        # The other one, which keeps the publisher, is named otherwise.
                        if open(f"/proc/{pid}/comm").read() == open("/proc/self/comm").read():
                            return os.kill(int(pid), 9)

        threading.Thread(target=kill_twin, daemon=True).start()
        try:
            with checkpoint(sys.argv[0] + ".failed", then="continue", engine="native"):
                pass
        except Exception as error:
            print(type(error).__name__, error, file=sys.stderr)
        del held
        """
    outcome = dump(before, "print('ran')")
    assert "CheckpointError the native dump failed: " in outcome.errors
    assert outcome.copy() == "ran\n"
