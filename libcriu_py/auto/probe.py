"""
Find out which modules a snapshot may have been imported into, and what their import depends on.

A module that starts another process, or talks to one, when it is imported finds something else in a copy, and is left
to the copy, as are the modules that import it. So is one that prints something then, such as a warning, or looks at
the program's arguments. A file that is read, or looked for, is compared at each start. Where a module looks at the
working directory (`def lint(path=os.getcwd())`), or PYTHONPATH starts there, a snapshot is for that directory alone.

The import of all candidates in a process of their own, with the program's sys.path, shows what each does.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.auto.entry import Learned, Watched, watched
from libcriu_py.program import interpreter, preload
from libcriu_py.program.main import Program, path0, set_path0

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

ROUNDS = 8
PRELUDE = "libcriu_py.integrations.{}_imports"
"""What an interpreter imports first: it has other modules imported as the tool imports them."""
_ACTS = frozenset(
    {"subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork", "os.forkpty", "os.chdir"}
    | {"socket.connect", "socket.getaddrinfo", "urllib.Request"}
)
"""Audit events of what is not for a snapshot to keep (docs.python.org/3/library/audit_events.html)."""
_HARMLESS = frozenset({"dpkg-architecture", "uname", "lsb_release"})
"""Programs that say the same as long as the machine is the same."""
_PATHS = frozenset({"open", "os.listdir", "os.scandir"})
_IGNORED = ("/proc/", "/sys/", "/dev/")
_WRITES = os.O_WRONLY | os.O_RDWR
_READ_BY_LIBRARIES = (
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_"),
    *("NUMEXPR_", "TF_", "XLA_", "CUDA_", "LD_", "MALLOC_"),
)
"""Beginnings of variables that compiled libraries read when they are loaded."""
_LOOKERS = ("stat", "lstat", "access", "readlink")
"""Functions of `os` that look at a path and raise no audit event."""


class Found(NamedTuple):
    """
    What is known of the candidates.

    Attributes:
        modules: Those that can be imported, in order.
        without: Why others are left out, by name.
        files: What the imports read and look for.
        by_directory: Whether they look at the working directory.
    """

    modules: list[str]
    without: dict[str, str]
    files: list[Watched]
    by_directory: bool = False


def probe(program: Program, python: str, learned: Learned, cwd: str) -> Found:
    """
    Import candidates until none of them does what a snapshot is not to keep.

    Args:
        program: The program.
        python: Its interpreter.
        learned: The candidates; none means those that the source of the program names.
        cwd: The working directory.
    """
    without: dict[str, str] = {}
    modules = learned.modules
    for _ in range(ROUNDS):
        left = {name: file for name, file in modules.items() if name not in without}
        told = _run(program, python, Learned(left, learned.variables), cwd)
        without.update(told["without"])
        modules = modules or told["loaded"]
        if not told["acts"]:
            names = [name for name in modules if name not in without]
            return Found(names, without, [Watched(*file) for file in told["files"]], told["by_directory"])
        without.update(told["acts"])
    return Found([], without, [])


def _run(program: Program, python: str, learned: Learned, cwd: str) -> dict[str, Any]:
    import subprocess

    command = interpreter.command("from libcriu_py.auto.probe import main; main()", python=python)
    order = json.dumps({"program": program._asdict(), "learned": learned})
    reads, writes = os.pipe()
    with open(reads, "rb") as answer:
        process = subprocess.Popen(
            [*command, str(writes), order], pass_fds=[writes], cwd=cwd, stdin=subprocess.DEVNULL, start_new_session=True
        )
        os.close(writes)
        text = answer.read()
        process.wait()
    if not text:
        acts = dict.fromkeys(learned.modules, "the imports ended the process")
        return {"without": {}, "acts": acts, "files": [], "loaded": {}, "by_directory": False}
    told: dict[str, Any] = json.loads(text)
    return told


# ---- in the other process ---------------------------------------------------------


class _Arguments(list[str]):
    """`sys.argv`, of which a copy has the first when modules are imported, and the others later."""

    note: Callable[[], None]

    def __getitem__(self, index: Any) -> Any:
        """Return the program's path without a note."""
        if index != 0:
            self.note()
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[str]:
        """Iterate, with a note."""
        self.note()
        return super().__iter__()

    def __contains__(self, word: object) -> bool:
        """Search, with a note."""
        self.note()
        return super().__contains__(word)

    def __len__(self) -> int:
        """Count, with a note."""
        self.note()
        return super().__len__()


class _Watch:
    """What modules do while they are imported."""

    def __init__(self, own: Sequence[str], variables: Sequence[str]) -> None:
        self._variables = frozenset(variables)
        self._reads: list[tuple[str | None, list[str]]] = []
        self._set: set[str] = set()
        self.acts, self.files = dict[str, str](), dict[str, Watched]()
        path = os.environ.get("PYTHONPATH")
        self.by_directory = bool(path) and not all(map(os.path.isabs, path.split(os.pathsep)))  # type: ignore[union-attr]
        self.active = False
        self._importers: dict[str, set[str]] = {}
        self._own = tuple(os.path.join(directory, "") for directory in own)
        self._cwd = os.getcwd()
        self._import = builtins.__import__

    def begin(self) -> None:
        """Watch all that goes by."""
        sys.addaudithook(self._heed)
        builtins.__import__ = self._note_import  # type: ignore[assignment]
        for name in ("getcwd", "getcwdb"):
            setattr(os, name, self._around(getattr(os, name), self._look))
        for name in _LOOKERS:
            setattr(os, name, self._around(getattr(os, name), self._look_at))
        for stream in (sys.stdout, sys.stderr):
            for file in (stream, stream.buffer):
                file.write = self._around(file.write, self._print)  # type: ignore[method-assign]
        os.environ.__class__ = _Variables
        _Variables.note, _Variables.note_change = self._look_at_variable, self._set_variable
        sys.argv = arguments = _Arguments(sys.argv)
        arguments.note = self._look_at_arguments

    def load(self, name: str, parts: Sequence[str]) -> None:
        """Import a module as the main module does, which is shown more warnings than others."""
        code = "load(name, fromlist=parts)"
        exec(code, {"__name__": "__main__", "load": self._import, "name": name, "parts": parts})  # noqa: S102

    def blamed(self) -> dict[str, str]:
        """Return what modules do, and those that import them."""
        self._blame_reads()
        found = dict(self.acts)
        left = list(found)
        while left:
            name = left.pop()
            for importer in self._importers.get(name, ()):
                if importer not in found:
                    found[importer] = f"it imports {name}: {found[name].rpartition('it imports ')[2]}"
                    left.append(importer)
        return found

    def _note_import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the names of the built-in function
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> Any:
        if level < 0 or globals is None:
            return self._import(name, globals, locals, fromlist, level)
        importer = globals.get("__name__")
        package = globals.get("__package__") or ""
        parts = package.split(".")
        full = ".".join([*parts[: len(parts) - level + 1], *filter(None, [name])]) if level else name
        if isinstance(importer, str):
            pieces = full.split(".")
            for end in range(1, len(pieces) + 1):
                self._importers.setdefault(".".join(pieces[:end]), set()).add(importer)
            for part in fromlist or ():
                self._importers.setdefault(f"{full}.{part}", set()).add(importer)
        return self._import(name, globals, locals, fromlist, level)

    def _heed(self, event: str, args: tuple[Any, ...]) -> None:
        """Be the audit hook."""
        acts = event in _ACTS
        if not self.active or not (acts or event in _PATHS):
            return  # first: to look at frames is an event, too
        frame = sys._getframe(1)  # noqa: SLF001
        if frame.f_code.co_filename.startswith("<frozen"):
            return  # the import system
        if not acts:
            self._look_at(args[0], args[2] if event == "open" and len(args) > 2 else 0, lists=event != "open")
        elif event != "subprocess.Popen" or os.path.basename(_text(args[0]) or "") not in _HARMLESS:
            self._blame(frame, f"it does {event} when it is imported")

    def _blame(self, frame: FrameType, why: str) -> None:
        self.acts.update(dict.fromkeys(set(_being_imported(frame)) - self.acts.keys(), why))

    def _print(self, text: object) -> None:
        if self.active and text:
            self._blame(sys._getframe(2), "it prints something when it is imported")  # noqa: SLF001

    def _look_at_arguments(self) -> None:
        if self.active:
            self._blame(sys._getframe(2), "it looks at the arguments when it is imported")  # noqa: SLF001

    def _look_at_variable(self, name: str | None) -> None:
        """Note the look at a variable that the program changes, or at all of them."""
        if self.active and self._variables and (name is None or name in self._variables):
            self._reads.append((name, _being_imported(sys._getframe(2))))  # noqa: SLF001

    def _set_variable(self, name: str) -> None:
        """Note that it is a module that changes a variable, as it does before a dump."""
        if self.active:
            self._set.add(name)

    def _blame_reads(self) -> None:
        """Blame modules that read what the program changes before it imports them."""
        changed = self._variables - self._set
        for name, modules in self._reads:
            if name in changed or (name is None and changed):
                why = f"it reads {name or 'variables'}, which the program changes, when it is imported"
                self.acts.update(dict.fromkeys(set(modules) - self.acts.keys(), why))

    def compare(self, name: str, file: str) -> None:
        """Blame a module that is another one than in the program, or has a library that reads changed variables."""
        module = sys.modules.get(name)
        now = getattr(module, "__file__", None) or ""
        if file and now != file:
            self.acts.setdefault(name, f"the program has it from {file}, and it is found in {now or 'the interpreter'}")
        elif (
            now.endswith(".so")
            and "site-packages" in now
            and any(variable.startswith(_READ_BY_LIBRARIES) for variable in self._variables)
        ):
            self.acts.setdefault(name, "its library may read variables that the program changes before")

    def _look(self, *_: object) -> None:
        """Note a look at the working directory; of that of the standard library see `resources.processes`."""
        if self.active and not _of_library(sys._getframe(2)):  # noqa: SLF001
            self.by_directory = True

    def _look_at(self, path: object, flags: object = 0, *, lists: bool = False) -> None:
        path = _text(path)
        if not self.active or path is None or (isinstance(flags, int) and flags & _WRITES):
            return
        if not path.startswith("/"):
            self.by_directory = True
            path = os.path.join(self._cwd, path)
        if not path.startswith(_IGNORED) and not path.startswith(self._own) and path not in self.files:
            self.active = False
            if lists or not os.path.isdir(path):
                self.files[path] = watched(path)
            self.active = True

    def _around(self, function: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            note(*args[:1])
            return function(*args, **kwargs)

        return wrapper


class _Variables(os._Environ):  # type: ignore[type-arg]  # noqa: SLF001 - what os.environ is
    """`os.environ`, which tells of looks at it."""

    note: Callable[[str | None], None]
    note_change: Callable[[str], None]

    def __setitem__(self, key: str, value: str) -> None:
        _Variables.note_change(key)
        super().__setitem__(key, value)

    def __getitem__(self, key: str) -> str:
        _Variables.note(key)
        value: str = super().__getitem__(key)
        return value

    def __iter__(self) -> Iterator[str]:
        _Variables.note(None)
        return super().__iter__()


def _being_imported(frame: FrameType) -> list[str]:
    """Return the modules that are being imported: each imports the next."""
    found: list[str] = []
    at: FrameType | None = frame
    while at is not None:
        spec = at.f_globals.get("__spec__") if at.f_code.co_name == "<module>" else None
        if spec is not None:
            found.append(spec.name)
        at = at.f_back
    return found


def _of_library(frame: FrameType) -> bool:
    """Return whether the innermost module that is being imported is of the standard library."""
    at: FrameType | None = frame
    library = os.path.join(os.path.dirname(os.__file__), "")
    while at is not None:
        if at.f_code.co_name == "<module>":
            name = at.f_code.co_filename
            return name.startswith(library) and "site-packages" not in name
        at = at.f_back
    return False


def _text(path: object) -> str | None:
    if isinstance(path, os.PathLike):
        path = os.fspath(path)
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    return path if isinstance(path, str) else None


def _named(program: Program) -> list[preload.Wanted]:
    """Return the imports in the source of a program; none if what they find may depend on what it does before."""
    from libcriu_py.program.imports import read_main

    source = read_main(program).source
    if "environ" in source or "sys.path" in source:
        return []
    return preload.read(program).wanted


def main() -> None:
    """Import the candidates, and write what they do."""
    answer, order = int(sys.argv[1]), json.loads(sys.argv[2])
    os.set_inheritable(answer, False)
    program = Program(**order["program"])
    set_path0(path0(program) if program.kind == "script" else None)
    sys.argv[:] = [program.value if program.kind == "script" else ""]
    without: dict[str, str] = {}
    modules, variables = order["learned"]
    wanted: list[preload.Wanted] = [(name, ()) for name in modules]
    if program.kind == "interpreter":
        __import__(PRELUDE.format(program.value))
    else:
        wanted = wanted or _named(program)
    watch = _Watch([sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)], variables)
    watch.begin()
    before = set(sys.modules)
    for name, parts in wanted:
        watch.active = True
        try:
            with contextlib.redirect_stdout(sys.stderr):
                watch.load(name, parts)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - code of a module may raise anything
            without[name] = f"{type(error).__name__}: {error}"
        finally:
            watch.active = False
    for name, file in modules.items():
        if name not in without:
            watch.compare(name, file)
    told = {
        "without": without,
        "acts": watch.blamed(),
        "files": list(watch.files.values()),
        "loaded": dict.fromkeys((name for name in sys.modules if name not in before), ""),
        "by_directory": watch.by_directory,
    }
    with open(answer, "w", encoding="utf-8") as file:
        json.dump(told, file)
        file.flush()
        os._exit(0)  # threads of modules, and what they do at exit, are not wanted
