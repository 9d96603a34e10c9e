"""
The place of one program in the cache of automatic snapshots.

The launcher makes it, and reads `snap` and `refused` at each start. Only a job that holds the lock changes these.

    snap/       the snapshot
    state.json  which modules programs import, which the snapshot has, why it lacks others, and when it was made
    runs        what programs have done since: a line for each module, with a tab and its file, and one for each
                variable that was changed, behind a =
    hits        a byte for each start from the snapshot
    misses      a line for each start that was conventional: when, and why
    refused     why there is no snapshot; then the files that were so at that time, with size and time of change
    watch.PID   a copy that has not ended in order yet
    job.log     what the last job has written

Where modules of the program look at the working directory when they are imported, there is a file `by-directory`, and a
directory `at-...` with all of that for each working directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.copies import interpreter
from libcriu_py.program.main import Program
from libcriu_py.program.reads import hash_of
from libcriu_py.snapshot import launcher
from libcriu_py.snapshot.record import ABSENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    from libcriu_py.program.main import Kind

KEPT_MISSES = 20
REFUSED_FOR = 86400
"""Seconds after which the launcher starts a job all the same (csrc/launcher/automatic.c)."""
FIRST_REFUSED_FOR = 600
"""As above, the first time: a disk may be full no longer. Each further time is twice as long."""
BY_DIRECTORY = "by-directory"
NEW, ASIDE = "new", "aside"
"""Snapshots that are not in their place yet, or not any more."""
_NOT_LEARNED = ("__", "libcriu_py", "sitecustomize", "usercustomize")


class Watched(NamedTuple):
    """A file, as it was."""

    path: str
    size: int
    changed: int
    """Nanoseconds since the epoch; 0 if it is not there, and its size is `ABSENT`."""


class Learned(NamedTuple):
    """What starts of a program have shown."""

    modules: dict[str, str]
    """The file of each module, in the order of the imports; empty for one without."""
    variables: list[str]
    """Those that the program has changed."""

    def with_more(self, more: Learned) -> Learned:
        """Return this and what another start has shown."""
        variables = dict.fromkeys([*self.variables, *more.variables])
        return Learned({**self.modules, **more.modules}, list(variables))


def watched(path: str) -> Watched:
    """Return a file as it is, or as one that is not there."""
    try:
        status = os.lstat(path) if not os.path.exists(path) else os.stat(path)
    except (OSError, ValueError):
        return Watched(path, ABSENT, 0)
    return Watched(path, status.st_size, status.st_mtime_ns)


class Entry:
    """
    The place of a program.

    Attributes:
        path: The directory.
        program: The program.
        python: The interpreter.
    """

    def __init__(self, path: str, program: Program, python: str) -> None:
        self.path, self.program, self.python = path, program, python

    def file(self, name: str) -> str:
        """Return the path of a file in it."""
        return os.path.join(self.path, name)

    @property
    def snapshot(self) -> str:
        """Where the snapshot is."""
        return self.file("snap")

    def locked(self, *, wait: bool = False) -> AbstractContextManager[bool]:
        """Yield whether this process alone works on the entry, until the block ends."""
        return interpreter.locked(self.file("lock"), wait=wait)

    def of_directory(self, cwd: str) -> Entry:
        """
        Return the place of the program in one working directory, at which its modules look when they are imported.

        The launcher goes there at once from the next start on (csrc/launcher/automatic.c, name_entry_of_directory).

        Args:
            cwd: The directory.
        """
        place = Entry(self.file(f"at-{hash_of(os.fsencode(cwd)):016x}"), self.program, self.python)
        os.makedirs(place.path, mode=0o700, exist_ok=True)
        self._write(BY_DIRECTORY, "")
        return place

    def directories(self) -> list[Entry]:
        """Return the places of the program in working directories, the one used last first."""
        names = [name for name in os.listdir(self.path) if name.startswith("at-")]
        found = [Entry(self.file(name), self.program, self.python) for name in names]
        return sorted(found, key=Entry.used, reverse=True)

    def obstacle(self) -> str | None:
        """Return why this user's starts keep nothing there; None if nothing is in the way."""
        place = self.path
        status = None
        while status is None:
            try:
                status = os.stat(place)
            except OSError:  # not there, or in a directory of another user
                place = os.path.dirname(place)
        if os.access(place, os.W_OK | os.X_OK) and (status.st_uid == os.geteuid() or place != self.path):
            return None
        if status.st_uid == os.geteuid():
            return f"{place} cannot be written to: its snapshot is used as long as it fits, and none is made"
        return (
            f"{place} belongs to user {status.st_uid}, and this is user {os.geteuid()}: starts are conventional; "
            "set LIBCRIU_PY_CACHE to a directory of this user"
        )

    def used(self) -> float:
        """Return when the program was started last."""
        return max(watched(self.file(name)).changed / 1e9 for name in ("hits", "misses", "state.json"))

    # ---- what programs have noted -------------------------------------------------

    def take_runs(self) -> Learned:
        """Return what is in `runs`, and begin anew."""
        taken = self.file("runs.taken")
        learned = Learned({}, [])
        try:
            os.rename(self.file("runs"), taken)
            text = self._text("runs.taken")
            os.unlink(taken)
        except FileNotFoundError:
            return learned
        for line in text.splitlines():
            name, _, file = line.partition("\t")
            if name.startswith("="):
                learned.variables.append(name[1:])
            elif name and not name.startswith(_NOT_LEARNED):
                learned.modules[name] = file
        return learned

    def misses(self) -> list[tuple[float, str]]:
        """Return when, and why, starts were conventional."""
        found = []
        for line in self._text("misses").splitlines():
            when, _, why = line.partition(" ")
            if when.isdigit():
                found.append((float(when), why))
        return found

    def hits(self) -> int:
        """Return how often the program was started from this snapshot."""
        try:
            return os.stat(self.file("hits")).st_size
        except OSError:
            return 0

    # ---- what the job has noted ----------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what the last job has noted; nothing where there was none, or it is damaged."""
        try:
            found = json.loads(self._text("state.json"))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def note(self, **state: object) -> None:
        """Note something beside the rest."""
        known = {**self.state(), "program": self.program._asdict(), "python": self.python, **state}
        self._write("state.json", json.dumps(known))

    def refused(self) -> str | None:
        """Return why there is no snapshot; None if none was refused."""
        return self._text("refused").split("\n", 1)[0] or None

    def refuse(self, reason: str, files: Iterable[Watched], *, for_long: bool = False) -> None:
        """
        Have no snapshot made until one of some files changes, or for a while.

        Args:
            reason: Why, in words.
            files: The files.
            for_long: For the longest while, whatever was refused before.
        """
        rows = [
            f"{file.path}\t{file.size}\t{file.changed}"
            for file in files
            if file.size != ABSENT and "\n" not in file.path
        ]
        self._write("refused", "\n".join([" ".join(reason.split()), *rows]) + "\n")
        times = self.state().get("refusals", 0)
        self.note(refusals=times + 1)
        wait = REFUSED_FOR if for_long else min(REFUSED_FOR, FIRST_REFUSED_FOR << min(times, 20))
        when = time.time() - REFUSED_FOR + wait
        os.utime(self.file("refused"), (when, when))

    def accept(self) -> None:
        """Forget that a snapshot was refused, and how often, and the count of an old one."""
        self.note(refusals=0)
        for name in ("refused", "hits"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.file(name))
        lines = self._text("misses").splitlines(keepends=True)
        self._write("misses", "".join(lines[-KEPT_MISSES:]))

    def tidy(self) -> None:
        """Remove what jobs and copies have left that were killed."""
        from libcriu_py.snapshot import remains

        for name in os.listdir(self.path):
            pid = name.removeprefix("watch.")
            if pid != name and not os.path.exists(f"/proc/{pid}"):
                os.unlink(self.file(name))
            elif name in {NEW, ASIDE}:
                remains.remove(self.file(name))

    def _text(self, name: str) -> str:
        try:
            with open(self.file(name), encoding="utf-8", errors="surrogateescape") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def _write(self, name: str, text: str) -> None:
        temporary = self.file(f"{name}.new")
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.replace(temporary, self.file(name))


def program_of(kind: str, value: str) -> Program:
    """Return the program that the launcher names; a tool is run by an interpreter, whose value is its name: pytest."""
    kinds: dict[str, Kind] = {"module": "module", "tool": "interpreter"}
    return Program(kinds.get(kind, "script"), value)


def find(words: Sequence[str], python: str) -> Entry | None:
    """
    Return the place of the program that a command line names.

    Args:
        words: The command line.
        python: The interpreter of a program that names none.

    Returns:
        The place, whose directory may not be there; None if that is no Python program, or there is no cache.
    """
    import subprocess

    command = [launcher.path(), "--auto-tell", python, *words]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        return None
    path, kind, value, interpreter = map(os.fsdecode, done.stdout.split(b"\0"))
    return Entry(path, program_of(kind, value), interpreter)


def cache() -> str | None:
    """Return the directory with all entries; None if there is no cache."""
    base = interpreter.base()
    return None if base is None else os.path.join(base, "auto")


def all_entries() -> list[Entry]:
    """Return the entries that a job has worked on."""
    directory = cache()
    if directory is None or not os.path.isdir(directory):
        return []
    found = []
    for name in sorted(os.listdir(directory)):
        entry = Entry(os.path.join(directory, name), Program("script", ""), "")
        state = entry.state()
        try:
            entry.program, entry.python = Program(**state["program"]), state["python"]
        except (KeyError, TypeError):
            continue
        found += [entry] if os.path.isdir(entry.snapshot) or not entry.directories() else entry.directories()
    return found
