"""What the engines of a checkpoint share, and a rehearsal without a dump."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Any

from libcriu_py.errors import CheckpointError
from libcriu_py.hooks.lifecycle import Engine, Outcome, Return

if TYPE_CHECKING:
    from collections.abc import Mapping

    from libcriu_py.dump.arrival import Handover
    from libcriu_py.memory.owners import Census
    from libcriu_py.program.main import Program
    from libcriu_py.snapshot.record import Launch
    from libcriu_py.snapshot.sources import Loaded
    from libcriu_py.snapshot.staging import Staging


class SimulateEngine(Engine):
    """The same lifecycle without a dump, to test hooks anywhere."""

    def quiesce(self) -> None:
        """Collect garbage, and flush stdout and stderr."""
        from libcriu_py.dump import stdio

        gc.collect()
        stdio.flush()

    def dump(self) -> Return:
        """Return without a dump."""
        return Return(Outcome.SIMULATED)


class SnapshotEngine(SimulateEngine):
    """
    A dump of this process into a snapshot, whatever takes it.

    Thread safety: one dump at a time; other threads are stopped wherever they are.
    """

    name: str

    def __init__(
        self,
        path: str,
        *,
        then: str,
        replace: bool,
        program: Program | None,
        details: Mapping[str, object] | None,
        options: Mapping[str, object] | None,
        memory: str = "auto",
        env_check: str = "error",
    ) -> None:
        """Take the arguments of `checkpoint_here`."""
        super().__init__()
        self._path = path
        self.ends_original = then == "exit"
        self._replace = replace
        self._program = program
        self._details = dict(details or {})
        self._options = dict(options or {})
        self._memory = memory
        self._env_check = env_check
        self._staging: Staging | None = None
        self._handover: Handover | None = None
        self._census: Census | None = None
        self._kept: object = None
        """Kept alive in copies: freeing it would dirty shared pages."""

    def reserve(self) -> None:
        """
        Reserve the directory.

        Raises:
            FileExistsError: The directory is not empty.
        """
        from libcriu_py.snapshot.staging import Staging

        self._staging = Staging(self._path, replace=self._replace)

    def hand_to(self, other: SnapshotEngine) -> None:
        """Let another engine dump into the directory that this one has reserved."""
        if self._staging is not None:
            self._staging.clear()
        other._staging, self._staging = self._staging, None

    def abandon(self) -> None:
        """Remove the directory; an interrupted copy leaves the snapshot alone."""
        if self._staging is not None and (self._handover is None or not self._handover.in_copy()):
            self._staging.discard()
        self._staging = None

    def await_release(self) -> None:
        """Wait until no other process works on the copy."""
        if self._handover is not None:
            self._handover.await_release()

    def report_ready(self, outcome: Outcome) -> None:
        """Report to the restoring side that the after-hooks have run."""
        if outcome is Outcome.RESTORED and self._handover is not None:
            self._handover.report_ready()

    def dump(self) -> Return:
        """
        Dump this process.

        Returns:
            The outcome: in the original with `then="continue"`, and in each copy.

        Raises:
            CriuError: There is no dump; the process is as it was.
        """
        import resource

        # The program's own limits may be too low for an image of its memory, and for who writes it.
        limits = {limit: resource.getrlimit(limit) for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)}
        returned: Return | None = None
        try:
            for limit, (_, hard) in limits.items():
                resource.setrlimit(limit, (hard, hard))
            returned = self.take()
            return returned
        finally:
            if returned is None or returned.outcome is not Outcome.RESTORED:
                self._forget_copy()
                for limit, values in limits.items():
                    resource.setrlimit(limit, values)

    def take(self) -> Return:
        """Dump this process, with limits as high as they may be."""
        raise NotImplementedError

    def _forget_copy(self) -> None:
        from libcriu_py.linux import arrival

        arrival.forget()

    # Code that only the original runs has functions of its own, so that copies need not free its variables.

    def _reserved(self) -> Staging:
        if self._staging is None:
            message = "the checkpoint was not prepared"
            raise CheckpointError(message)
        return self._staging

    def _take_census(self) -> None:
        from libcriu_py.memory.owners import take_census

        self._census = take_census()

    def _launch(self, **of_engine: Any) -> Launch:
        """Collect for the launch record what is no longer known after the dump."""
        from libcriu_py.dump.arrival import command_prefix
        from libcriu_py.linux.capabilities import bounding_is_reduced, capabilities
        from libcriu_py.program import reads, start_variables
        from libcriu_py.snapshot.identity import cpu_flags
        from libcriu_py.snapshot.record import Launch

        reads.end()
        program = self._program
        return Launch(
            command=(sys.executable, *(command_prefix()[1:] if program is None else program.arguments())),
            program=program,
            arch=os.uname().machine,
            cpu_flags=cpu_flags(),
            variables=start_variables.recorded(os.environ, self._more_variables()),
            uid=os.geteuid(),
            gid=os.getegid(),
            groups=tuple(sorted(os.getgroups())),
            capabilities=capabilities().permitted,
            reduced_bounding=bounding_is_reduced(),
            session_leader=os.getsid(0) == os.getpid(),
            reads=reads.found() if self._env_check != "off" else (),
            warns=self._env_check == "warn",
            engine=self.name,
            **of_engine,
        )

    def _is_interpreter(self) -> bool:
        """Return whether copies take Python's own command line."""
        return self._program is not None and self._program.kind == "interpreter"

    def _more_variables(self) -> tuple[str, ...]:
        """Return the names of variables that have to be as they were beside those of any program."""
        if not self._is_interpreter():
            return ()
        from libcriu_py.program import start_variables

        return start_variables.OF_INTERPRETER

    def _with_modules(self, launch: Launch) -> Launch:
        """Add to a record the sources and packages of the modules that are loaded."""
        from libcriu_py.snapshot import installed

        loaded = self._loaded()
        return self._with_sources(launch, loaded)._replace(**installed.find(loaded)._asdict())

    def _loaded(self) -> Loaded:
        """Return which modules are loaded."""
        from libcriu_py.snapshot import sources

        # Each copy reads the main module of a named program again.
        found = sources.loaded(path0=self._program is None or self._program.kind != "module" or "path" in self._details)
        if self._is_interpreter():
            for name in ("sitecustomize", "usercustomize"):  # of which there may be none yet
                found.names.append(name)
                found.paths.append(None)
        return found

    def _with_sources(self, launch: Launch, loaded: Loaded) -> Launch:
        from libcriu_py.snapshot import sources
        from libcriu_py.snapshot.record import ComparedFile

        rows = self._details.get("compared")
        more = [ComparedFile(*row) for row in rows] if isinstance(rows, list) else []
        if self._is_interpreter():
            from libcriu_py.dump import python_options
            from libcriu_py.settings import variable

            more += sources.compared(python_options.startup_files())
            searched = (variable("LIBCRIU_PY_PRELOAD_PATH") or "").split(os.pathsep)
            loaded = loaded._replace(path=[*loaded.path, *filter(None, searched)])
        own = sources.find(loaded, main=self._program is None)
        return launch._replace(sources=tuple({file.path: file for file in (*more, *own)}.values()))

    def _facts(self) -> dict[str, Any]:
        """Collect for the manifest what is no longer known after the dump."""
        from libcriu_py.snapshot.identity import machine_identity
        from libcriu_py.snapshot.manifest import python_identity

        return {
            "machine": machine_identity(),
            "python": python_identity(),
            "argv": sys.argv[1:],
            "orig_argv": list(sys.orig_argv),
            "cwd": _cwd(),
            "details": self._details,
        }


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def load_for_copies(names: str) -> None:
    """
    Import early what the dump and a copy's first steps need.

    Importing it in a copy, after `importlib` caches are invalidated, would read directories again and free the old
    listings there.

    Args:
        names: Further modules of this package, between blanks.
    """
    import importlib

    for name in (*_STDLIB, *(f"libcriu_py.{name}" for name in (*_OURS.split(), *names.split()))):
        importlib.import_module(name)


_STDLIB = ("signal", "resource", "_locale", "select", "ctypes", "encodings.ascii")
_OURS = (
    "dump.arrival dump.stdio dump.takeover findings.process linux.arrival linux.capabilities linux.processes "
    "memory.owners program.start_variables snapshot.identity snapshot.manifest snapshot.request"
)
