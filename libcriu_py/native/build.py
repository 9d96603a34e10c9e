"""
The writer of a plan: from the facts of a dump and the process that stands still.

It accepts what it knows completely, and refuses anything else by name. `check` compares what it wrote with the process.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.native import areas, descriptors, owned, process, regions
from libcriu_py.native.facts import FactsError, NotEligible
from libcriu_py.native.plan import COMPONENTS, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from libcriu_py.memory.owners import Census
    from libcriu_py.native.facts import Facts
    from libcriu_py.native.plan import Descriptor, Lock, Watch
    from libcriu_py.native.regions import Mapped, Region

_AT_SYSINFO_EHDR = 33
_AMX = 3 << 17
"""XSAVE components of AMX: no frame has them unless the process has asked for them, which the dump refuses."""


class Built(NamedTuple):
    """A plan, and what is told of it."""

    plan: Plan
    memory: dict[str, object]
    """For the manifest."""


def build(facts: Facts, mapped: Mapped, image: int, wanted: str, census: Census | None) -> Built:
    """
    Make the plan of a snapshot.

    Args:
        facts: What the dump wrote down.
        mapped: What the process that stands still has mapped.
        image: `memory.img`, open for reading.
        wanted: How copies get their memory: "auto", "map" or "copy".
        census: What malloc said about its large blocks.

    Raises:
        NotEligible: The process has something that a plan cannot have.
        FactsError: What the dump wrote down does not fit the process.
    """
    found, special = mapped
    rows, watches, locks = _refuse(facts, found)
    choice = owned.choose(facts, found, image, wanted, census)
    guards = regions.guards(facts.standing, found)
    layout = areas.lay_out(facts, found, choice.owned, guards, os.fstat(image).st_size)
    vdso = _vdso(facts, special)
    components = dict.fromkeys(range(COMPONENTS), (0, 0))
    components |= {number: (offset, size) for number, offset, size in facts.components if not _AMX >> number & 1}
    plan = Plan(
        xcr0=facts.xcr0 & ~_AMX,
        components=tuple(components.values()),
        special=(special[0].start, special[-1].end) if special else (0, 0),
        vdso=vdso,
        vdso_content=_content(facts.standing, vdso),
        threads=len(facts.threads),
        in_vdso=any(vdso[0] <= thread.interrupted_at < vdso[1] for thread in facts.threads),
        monotonic=facts.monotonic,
        boottime=facts.boottime,
        resume=facts.resume,
        stack=facts.stack,
        fs=facts.fs,
        areas=layout.areas,
        reads=layout.reads,
        files=layout.files,
        descriptors=tuple(rows),
        watches=tuple(watches),
        locks=tuple(locks),
    )
    return Built(plan, _describe(plan, choice, facts.original, census))


def refuse(facts: Facts) -> None:
    """
    Refuse what no plan can have, as far as that is known without its memory.

    Args:
        facts: What the dump wrote down.

    Raises:
        NotEligible: The process has something that a plan cannot have.
    """
    with open(f"/proc/{facts.standing}/smaps", "rb", buffering=0) as file:
        _refuse(facts, regions.parse(file.readall()).regions)


def _refuse(facts: Facts, found: Sequence[Region]) -> tuple[Sequence[Descriptor], Sequence[Watch], Sequence[Lock]]:
    process.refuse(facts)
    regions.refuse_unknown(found, range(*facts.scratch))
    return descriptors.find(facts)


def _vdso(facts: Facts, special: Sequence[Region]) -> tuple[int, int]:
    start = process.auxiliary(facts).get(_AT_SYSINFO_EHDR, 0)
    found = [(region.start, region.end) for region in special if region.path == b"[vdso]"]
    is_whole = all(one.end == two.start for one, two in itertools.pairwise(special))
    if found != ([(start, found[0][1])] if found else []) or len(found) > 1 or not is_whole:
        raise NotEligible("has moved or unmapped a part of the vdso")
    return found[0] if found else (0, 0)


def _content(pid: int, place: tuple[int, int]) -> bytes:
    start, end = place
    if start == end:
        return b""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        file.seek(start)
        content = file.read(end - start)
    if len(content) != end - start:
        raise FactsError("the vdso cannot be read")
    return content


def _describe(plan: Plan, choice: owned.Choice, pid: int, census: Census | None) -> dict[str, object]:
    mapped: dict[str, int] = {}
    for start, end, owner in choice.owned:
        mapped[owner] = mapped.get(owner, 0) + end - start
    return {
        "kind": "map" if mapped else "copy",
        "why": choice.why,
        "census": {} if census is None else {str(pid): list(census)},
        "bytes": sum(mapped.values()),
        "copied": sum(read.end - read.start for read in plan.reads),
        "owners": mapped,
    }
