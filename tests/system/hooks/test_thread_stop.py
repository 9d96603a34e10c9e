"""Single-threaded hooks around a real dump."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.system.pairs import both
from tests.system.selfdump import take

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]


def test_threads_stand_still_through_the_dump(mode: Mode, directory_of: Directories) -> None:
    """
    Other threads stop before the last before-hook and go on after the first after-hook.

    That one runs in a copy which has its arguments and new random numbers already.
    """
    code = """
    import json, random, sys, threading, time
    from libcriu_py import after_restore, before_checkpoint, checkpoint
    sys.setswitchinterval(1e-4)
    counts, over = [0] * 16, False
    def count(place):
        while not over:
            counts[place] += 1
    def wait_for_all():
        before = list(counts)
        while any(new == old for new, old in zip(counts, before)):
            time.sleep(0.001)
    seen = []
    @before_checkpoint(single_threaded=True)
    def before():
        seen.append(list(counts))
    @after_restore(single_threaded=True)
    def after():
        time.sleep(0.05)
        seen.append(list(counts))
        seen.append([sys.argv[1], random.random()])
    threads = [threading.Thread(target=count, args=(place,)) for place in range(16)]
    for thread in threads:
        thread.start()
    wait_for_all()
    with checkpoint():
        pass
    wait_for_all()
    over = True
    for thread in threads:
        thread.join()
    print(json.dumps(seen))
    """
    first, second = both(take(mode, directory_of(mode.account), code), "given")
    before, after, (argument, number) = first
    _, _, (_, other) = second
    assert before == after
    assert argument == "given"
    assert number != other
