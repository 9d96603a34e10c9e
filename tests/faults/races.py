"""Starts of copies while another command works on their snapshot or removes it."""

from __future__ import annotations

import subprocess
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from tests.faults import program, verdict
from tests.faults.verdict import Judgement, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.place import Place

_ORDER = (Verdict.HANG, Verdict.CRASH, Verdict.WRONG, Verdict.ERROR, Verdict.FELL_BACK, Verdict.RIGHT)


def cases(count: int, base: Path, *, by_criu: bool) -> Iterator[tuple[str, Callable[[Place], Judgement]]]:
    """
    Yield all cases, each with its row: one start each, at a later time in the other command each time.

    Args:
        count: How many starts there are beside each command.
        base: The shared directory.
        by_criu: Whether criu dumps; `optimize` does nothing else.
    """
    seconds = {"snapshot --replace": 1.0, "rm -r": 0.02, **({"optimize": 0.4} if by_criu else {})}
    for number in range(count):
        for name, lasts in seconds.items():
            yield f"`run` beside {name}", partial(_race, name, lasts * number / count)


def _race(name: str, seconds: float, place: Place) -> Judgement:
    """Start three copies one after another from some time after the other command has begun."""
    snap = place.directory / "snap"
    made = place.run(program.snapshot_command(place, snap, "--memory", "copy"))
    assert made.status == 0, made
    commands: dict[str, list[object]] = {
        "snapshot --replace": program.snapshot_command(place, snap, "--replace"),
        "optimize": [*program.OURS, "optimize", "--memory", "map", snap],
        "rm -r": ["rm", "-r", snap],
    }
    other = subprocess.Popen([*map(str, commands[name])], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    started: list[Judgement] = []

    def start() -> None:
        started.append(verdict.of_start(place.run(program.start_command(snap)), program.expected(place.base)))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _, err = other.communicate(timeout=60)
    worst = min(started, key=lambda judgement: _ORDER.index(judgement.verdict))
    if other.returncode and name != "rm -r":
        return Judgement(Verdict.WRONG, f"{name} has failed: {err}")
    return worst
