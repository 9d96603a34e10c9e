"""Cause all faults, print what came of them, and write the figures into docs/reliability.md."""

from __future__ import annotations

import argparse
import os
import select
import shutil
import sys
import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults import damage, kills, program, races, report, space
from tests.faults.place import Place, Started
from tests.faults.verdict import BAD, Judgement, Verdict, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Case = tuple[str, Callable[[Place], Judgement]]

ROOT = Path(__file__).resolve().parents[2]
CRIU = """#!/bin/bash
if [ -s /tmp/case/inject ] && [[ $(cat /proc/$PPID/comm) != python* ]]; then
	exec strace -D -qq -o /tmp/case/criu.log $(cat /tmp/case/inject) {criu} "$@"
fi
exec {criu} "$@"
"""


def main(argv: Sequence[str]) -> int:
    """Run the command, and return its exit status: 1 if anything came of a fault that must not."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cases of each kind, in less than a minute")
    parser.add_argument("--engine", choices=("criu", "native"), default="criu", help="what dumps and restores")
    parser.add_argument("--only", default="", help="cases with this in their row; other rows stay written")
    parser.add_argument("--seed", type=int, default=1, help="of random times and places")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)) + 1, help="how many cases run at once")
    parser.add_argument(
        "--deadline",
        type=float,
        default=12.0,
        help="seconds after which a command has hung",
    )
    parser.add_argument("--verbose", action="store_true", help="print what came of each case")
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        parser.error("namespaces for each case need root")
    begun = time.monotonic()
    (ROOT / "build").mkdir(exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="faults-", dir=ROOT / "build"))
    try:
        _set_up(base, options.engine)
        cases = [case for case in _cases(options, base) if options.only in case[0]]
        judged = _run(base, cases, options)
    finally:
        shutil.rmtree(base)
    found = report.rows(judged)
    print(report.table(found))
    bad = [(row, judgement) for row, judgement in judged if judgement.verdict in BAD]
    print(f"{len(judged)} faults in {time.monotonic() - begun:.0f} s, {len(bad)} of which must not be as they are")
    if not options.quick:
        document = ROOT / "docs" / "reliability.md"
        marks = f"faults, {options.engine}"
        kept = report.written(document, marks) if options.only else {}
        report.write(document, marks, report.table({**kept, **found}))
    return 1 if bad else 0


def _cases(options: argparse.Namespace, base: Path) -> Iterator[Case]:
    by_criu = options.engine == "criu"
    if not options.quick:
        yield from kills.cases(20, options.seed, base, engine=options.engine)
        yield from kills.stuck(20, base) if by_criu else ()
        yield from space.cases(20, base, by_criu=by_criu)
        yield from damage.cases(200, options.seed, base)
        yield from races.cases(20, base, by_criu=by_criu)
        return
    yield from kills.cases(1, options.seed, base, engine=options.engine, signals=[kills.KILL])
    yield from kills.stuck(2, base) if by_criu else ()
    yield from space.cases(2, base, by_criu=by_criu)
    yield from damage.cases(8, options.seed, base, every=29)
    yield from races.cases(2, base, by_criu=by_criu)


def _set_up(base: Path, engine: str) -> None:
    """Make what all cases share: programs, snapshots, a criu into which faults can be put, caches."""
    from libcriu_py.criu.find import find_criu

    base.chmod(0o755)
    criu = base / "criu"
    criu.write_text(CRIU.format(criu=find_criu()), encoding="utf-8")
    criu.chmod(0o755)
    os.environ["LIBCRIU_PY_CRIU"] = str(criu)
    os.environ["LIBCRIU_PY_ENGINE"] = engine
    os.environ["PYTHONPATH"] = str(ROOT)
    program.write(base)
    for step in (_make_snapshots, partial(kills.record, engine=engine)):
        judgement = Started(base, step).wait()
        if judgement.verdict is not Verdict.RIGHT:
            message = f"the faults cannot be prepared: {judgement.detail}"
            raise SystemExit(message)


def _make_snapshots(place: Place) -> Judgement:
    base = place.base
    conventional = place.run([sys.executable, base / "main.py", *program.ARGUMENTS])
    (base / "expected").write_text(conventional.out, encoding="utf-8")
    for name, options in (("snap", ()), ("mapped", ("--memory", "map"))):
        ran = place.run(program.snapshot_command(place, base / name, *options))
        for mode in ("root", "rootless"):
            started = place.run(program.start_command(base / name, "--no-fallback", "--mode", mode))
            if ran.status or started.out != conventional.out:
                return Judgement(Verdict.BROKEN, f"{told(ran)}; {told(started)}")
    maps = [len(Path(f"/proc/{os.getpid()}/maps").read_text(encoding="utf-8").splitlines())]
    (base / "mappings").write_text(str(maps[0]), encoding="ascii")
    shutil.copytree("/dev/shm", base / "shm")
    return Judgement(Verdict.RIGHT)


def _run(base: Path, cases: Sequence[Case], options: argparse.Namespace) -> list[tuple[str, Judgement]]:
    """Run cases, some at a time; return them with what came of them."""
    waiting = iter(cases)
    running: dict[Started, str] = {}
    judged: list[tuple[str, Judgement]] = []
    while len(judged) < len(cases):
        for row, case in islice(waiting, options.jobs - len(running)):
            running[Started(base, case, deadline=options.deadline)] = row
        ready, _, _ = select.select([*running], [], [], 1.0)
        for started in [case for case in running if case in ready or case.is_late()]:
            row = running.pop(started)
            judged.append((row, started.result()))
            if options.verbose or judged[-1][1].verdict in BAD:
                print(f"{row}: {judged[-1][1].verdict.value}: {judged[-1][1].detail}", flush=True)
    return judged


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
