"""Print the contents of a snapshot for people, as a tree."""

from __future__ import annotations

import shlex
import time
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from libcriu_py.cli._arguments import count, size
from libcriu_py.errors import printable

PIPE_WIDTH = 1000
"""Columns if stdout is not a terminal, so that no line is wrapped."""

PROGRAMS = {"script": "script", "module": "module", "command": "command given with -c"}

_PIDS = "all copies have these pids, several at once in pid namespaces: they share what they name by pid"


def show(contents: dict[str, Any]) -> None:
    """Print what `_contents.read` returned."""
    contents = _printable(contents)
    tree = Tree(Text(contents["path"], style="bold"), highlight=False)
    _origin(tree, contents)
    _sizes(tree, contents["size"], contents["dump"])
    _memory(tree, contents["memory"])
    for process in contents["processes"]:
        _process(tree, process)
    if contents["engine"] == "criu":
        tree.add(Text(_PIDS))
    _preloaded(tree, contents)
    _mismatches(tree, contents)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(tree)


def _printable(value: Any) -> Any:
    """Return plain data with the control characters of its texts written out."""
    if isinstance(value, dict):
        return {_printable(name): _printable(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def _origin(tree: Tree, contents: dict[str, Any]) -> None:
    """Add what the snapshot is, and when, where and with what it was made."""
    program = contents["program"]
    if program is not None:
        what = f"{PROGRAMS[program['kind']]} {program['value'].splitlines()[0]}, warmed up and stopped before its start"
    elif contents["kind"] == "interpreter":
        what = "an interpreter without a program"
    else:
        what = f"{shlex.join(contents['command'])}, which checkpointed itself"
    tree.add(Text(what))
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(contents["created"]))
    tree.add(Text(f"made {when} ({_age(contents['age'])} ago) by uid {contents['uid']}, {_engine(contents)}"))
    python, machine = contents["python"], contents["machine"]
    criu = f", CRIU {contents['criu']}" if contents["criu"] else ""
    tree.add(Text(f"Python {python['version']} at {python['executable']}{criu}"))
    tree.add(Text(", ".join(f"{name} {value}" for name, value in machine.items() if isinstance(value, str))))


def _engine(contents: dict[str, Any]) -> str:
    """Return what dumped the process, and why not the native engine."""
    if contents["engine"] == "native":
        return "engine native"
    why = contents["why_not_native"]
    return f"engine criu, mode {contents['mode']}" + (f"; not native, because it {why}" if why else "")


def _sizes(tree: Tree, sizes: dict[str, int], dump: dict[str, int]) -> None:
    """Add its size on disk, and the cost of the dump."""
    branch = tree.add(Text(f"{size(sizes['total'])} in {count(sizes['files'], 'file')}"))
    if sizes["mapped"]:
        branch.add(Text(f"{size(sizes['mapped'])} of memory that copies share until they write to it"))
    if sizes["images"]:
        branch.add(Text(f"{size(sizes['pages'])} of memory that is copied at each restore"))
        branch.add(Text(f"{size(sizes['images'])} of other images"))
    branch.add(Text(f"{size(sizes['other'])} of {'logs and placeholders' if sizes['images'] else 'its plan'}"))
    written = dump.get("pages_written", 0)
    if "frozen_time" not in dump:
        tree.add(Text(f"the dump wrote {count(written, 'page')}"))
        return
    frozen = dump["frozen_time"] / 1000
    tree.add(
        Text(
            f"the dump froze it for {frozen:.1f} ms and wrote {count(written, 'page')} in {_ms(dump, 'memwrite_time')}"
        )
    )


def _ms(counters: dict[str, int], name: str) -> str:
    """Format one of CRIU's times, which are in microseconds."""
    return f"{counters.get(name, 0) / 1000:.1f} ms"


def _memory(tree: Tree, memory: dict[str, Any]) -> None:
    """Add how copies get their memory."""
    branch = tree.add(Text(f"memory is {'mapped' if memory['kind'] == 'map' else 'copied'}: {memory['why']}"))
    if memory["working_set"] is not None:
        ahead, written = (size(memory["working_set"][name]) for name in ("ahead", "bytes"))
        branch.add(Text(f"{ahead} copied when a copy starts, of {written} that it was observed to write to"))
    for owner, number in sorted(memory["owners"].items(), key=lambda item: -item[1]):
        branch.add(Text(f"{size(number)} {owner}"))


def _process(tree: Tree, process: dict[str, Any]) -> None:
    """Add a process: its threads, memory, files and sockets."""
    branch = tree.add(Text(f"process {process['pid']} ({process['name']}), {count(len(process['threads']), 'thread')}"))
    memory = branch.add(Text(f"{size(sum(process['memory'].values()))} of memory, {size(process['saved'])} saved"))
    for kind, number in process["memory"].items():
        memory.add(Text(f"{size(number)} {kind}"))
    kept = [file for file in process["files"] if file["replaced"] is None]
    handed = [f"{file['replaced']} on {file['fd']}" for file in process["files"] if file["replaced"] is not None]
    if handed:
        branch.add(Text(f"handed over at each restore: {', '.join(handed)}"))
    for title, entries in (("file", kept), ("socket", process["sockets"])):
        if entries:
            opened = branch.add(Text(count(len(entries), title)))
            for entry in entries:
                position = f", at {entry['position']}" if entry["position"] else ""
                opened.add(Text(f"{entry['fd']}: {entry['name'] or entry['kind']}{position}"))


def _preloaded(tree: Tree, contents: dict[str, Any]) -> None:
    """Add the modules that were imported beforehand."""
    names = contents["preloaded"]
    if names is None:
        return
    branch = tree.add(
        Text(f"{count(contents['modules'], 'module')} preloaded in {contents['preparation']} s, by importing")
    )
    branch.add(Text(", ".join(names) or "nothing"))
    for args in contents["warm_up"]:
        tree.add(Text(f"warmed up with {shlex.join(args) or 'no arguments'}"))


def _mismatches(tree: Tree, contents: dict[str, Any]) -> None:
    """Add what does not fit this machine, or that everything does."""
    if not contents["mismatches"]:
        verified = " and its files are unchanged" if contents["verified"] else ""
        tree.add(Text(f"fits this machine{verified}", style="green"))
        return
    for mismatch in contents["mismatches"]:
        tree.add(Text(mismatch["text"], style="bold red" if mismatch["fatal"] else "yellow"))


def _age(seconds: float) -> str:
    """Format an age for people."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
