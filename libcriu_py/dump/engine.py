"""The two engines of a checkpoint: CRIU, and a rehearsal without it."""

from __future__ import annotations

import gc
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from libcriu_py.errors import CheckpointError
from libcriu_py.hooks.lifecycle import Engine, Outcome, Return

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from libcriu_py.dump.arrival import Handover
    from libcriu_py.dump.original import Original
    from libcriu_py.findings.shared_stdio import Shared
    from libcriu_py.memory.owners import Census
    from libcriu_py.privilege.mode import Privilege
    from libcriu_py.program.main import Program
    from libcriu_py.snapshot.record import Launch
    from libcriu_py.snapshot.staging import Staging

_LOG_LEVEL = 4
# Options that criu needs at a restore as at the dump (criu/cr-service.c, setup_opts_from_req).
_ALSO_ON_RESTORE = (
    "unprivileged",
    "tcp_established",
    "tcp_close",
    "file_locks",
    "ext_unix_sk",
    "skip_file_rwx_check",
    "weak_sysctls",
    "orphan_pts_master",
    "ext_sharing",
    "ext_masters",
    "cpu_cap",
)


class SimulateEngine(Engine):
    """The same lifecycle without CRIU, to test hooks anywhere."""

    def quiesce(self) -> None:
        """Collect garbage, and flush stdout and stderr."""
        from libcriu_py.dump import stdio

        gc.collect()
        stdio.flush()

    def dump(self) -> Return:
        """Return without a dump."""
        return Return(Outcome.SIMULATED)


class CriuEngine(SimulateEngine):
    """
    The dump of this process by CRIU.

    Thread safety: one dump at a time; criu freezes other threads wherever they are.
    """

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
        self._path = path
        self.ends_original = then == "exit"
        self._replace = replace
        self._program = program
        self._details = dict(details or {})
        self._options = dict(options or {})
        self._memory = memory
        self._env_check = env_check
        self._staging: Staging | None = None
        self._mode: Privilege | None = None
        self._handover: Handover | None = None
        self._census: Census | None = None
        self._kept: object = None
        """Kept alive in copies: freeing it would dirty shared pages."""

    # ---- before the block --------------------------------------------------

    def prepare(self) -> None:
        """
        Check that this process can be dumped, and reserve the directory.

        Raises:
            BinaryNotFound: There is no criu.
            UnsupportedFeature: This process may not be dumped; the message says what to do.
            FileExistsError: The directory is not empty.
        """
        from libcriu_py.criu.find import find_criu
        from libcriu_py.privilege.decision import decide_dump
        from libcriu_py.snapshot.staging import Staging

        decision = decide_dump(find_criu())
        self._criu = decision.criu
        self._mode = decision.mode
        _load_for_restore()
        self._staging = Staging(self._path, replace=self._replace)

    def abandon(self) -> None:
        """Remove the directory; an interrupted copy leaves the snapshot alone."""
        if self._staging is not None and (self._handover is None or not self._handover.in_copy()):
            self._staging.discard()
        self._staging = None

    # ---- the dump ----------------------------------------------------------

    def dump(self) -> Return:
        """
        Dump this process.

        Returns:
            The outcome: in the original with `then="continue"`, and in each copy.

        Raises:
            OperationRefused: criu refused; the process is as it was.
            TransportError: criu could not be reached.
        """
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        returned: Return | None = None
        try:
            # The program's own limit on file sizes may be too low for an image of its memory.
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            returned = self._dump()
            return returned
        finally:
            if returned is None or returned.outcome is not Outcome.RESTORED:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def _dump(self) -> Return:
        from libcriu_py.criu.values import DumpOutcome
        from libcriu_py.dump import arrival, stdio
        from libcriu_py.dump.original import Original
        from libcriu_py.linux import processes

        staging = self._reserved()
        launch, facts = self._make_ready(staging)
        dumped_at = time.time()
        original = Original(staging, ends=self.ends_original)
        self._take_census()
        self._kept = (launch, facts, original)
        try:
            slot = os.open(staging.slot("request"), os.O_RDONLY | os.O_CLOEXEC)
            self._handover = arrival.Handover(slot, launch.command)
            images = os.open(staging.images, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                outcome = self._ask_criu(images, original.shared)
            finally:
                os.close(images)
            if outcome is DumpOutcome.RESTORED:
                processes.resume(original.stopped)
                request = self._handover.receive(before_start=stdio.reopen)
                return Return(Outcome.RESTORED, request, max(0.0, time.time() - dumped_at))
        except BaseException:
            if self._handover is not None and self._handover.in_copy():
                # A signal handler of the program has raised, as for Ctrl-C: the launcher must not start it again.
                self._handover.report_started()
            else:
                self._restore_original(original, dumped=False)
            raise
        self._restore_original(original, dumped=True)
        try:
            return self._publish(staging, launch, {**facts, "created": dumped_at}, original.shared)
        except BaseException:
            processes.resume(original.stopped)
            raise

    # Code that only the original runs has functions of its own, so that copies need not free its variables.

    def _make_ready(self, staging: Staging) -> tuple[Launch, dict[str, Any]]:
        """Refuse what cannot be dumped, leave a foreign session, and collect the launch record and manifest."""
        from libcriu_py.findings import refuse
        from libcriu_py.linux import processes

        refuse(self._options)
        staging.populate()
        processes.leave_foreign_session()
        return self._launch(staging), self._facts()

    def _restore_original(self, original: Original, *, dumped: bool) -> None:
        if self._handover is not None:
            self._handover.close()
        original.restore(dumped=dumped)

    def _take_census(self) -> None:
        from libcriu_py.memory.owners import take_census

        self._census = take_census()

    def await_release(self) -> None:
        """Wait until criu has detached from the copy."""
        if self._handover is not None:
            self._handover.await_release()

    def report_ready(self, outcome: Outcome) -> None:
        """Report to the restoring side that the after-hooks have run."""
        if outcome is Outcome.RESTORED and self._handover is not None:
            self._handover.report_ready()

    def _reserved(self) -> Staging:
        if self._staging is None:
            message = "the checkpoint was not prepared"
            raise CheckpointError(message)
        return self._staging

    def _launch(self, staging: Staging) -> Launch:
        """Collect for the launch record what is no longer known after the dump."""
        from libcriu_py.dump.arrival import command_prefix
        from libcriu_py.linux.capabilities import bounding_is_reduced, capabilities
        from libcriu_py.program import reads, start_variables
        from libcriu_py.snapshot.identity import cpu_flags
        from libcriu_py.snapshot.manifest import SLOTS
        from libcriu_py.snapshot.record import Launch

        reads.end()
        program = self._program
        options = {name: self._options.get(name) for name in _ALSO_ON_RESTORE}
        return Launch(
            command=(sys.executable, *(command_prefix()[1:] if program is None else program.arguments())),
            program=program,
            arch=os.uname().machine,
            cpu_flags=cpu_flags(),
            variables=start_variables.recorded(os.environ),
            uid=os.geteuid(),
            gid=os.getegid(),
            groups=tuple(sorted(os.getgroups())),
            capabilities=capabilities().permitted,
            reduced_bounding=bounding_is_reduced(),
            mode=self._mode.value if self._mode is not None else None,
            session_leader=os.getsid(0) == os.getpid(),
            slots=tuple(_key(staging.slot(name)) for name in SLOTS),
            images_key=_key(staging.images),
            restore_options={name: value for name, value in options.items() if isinstance(value, int)},
            reads=reads.found() if self._env_check != "off" else (),
            warns=self._env_check == "warn",
        )

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

    def _ask_criu(self, images: int, shared: Sequence[Shared]) -> Any:
        from libcriu_py.criu.call import written_config
        from libcriu_py.criu.client import Criu
        from libcriu_py.errors import OperationRefused
        from libcriu_py.linux import sockets
        from libcriu_py.linux.capabilities import traceable
        from libcriu_py.linux.runtime_dir import dump_environment
        from libcriu_py.settings import variable
        from libcriu_py.snapshot.manifest import DUMP_LOG

        options: dict[str, object] = {
            "images_dir": images,
            "log_file": DUMP_LOG,
            "log_level": _LOG_LEVEL,
            "leave_running": True,
            "shell_job": True,
            "unprivileged": True,
            **self._options,
        }
        if shared:
            from libcriu_py.findings.shared_stdio import outside

            given: Any = self._options.get("external") or ()
            options["external"] = [*given, *outside(shared)]
        service = variable("LIBCRIU_PY_SERVICE")
        try:
            if service is not None:
                # The service was started without our options; a configuration file passes those it lacks (CRIU 4.2).
                with written_config(os.path.join(self._reserved().path, "criu.conf"), options):
                    return Criu(service_fd=sockets.connect(service)).dump(options)
            env = {os.fsdecode(name): os.fsdecode(value) for name, value in dump_environment(self._criu).items()}
            with traceable():
                return Criu(self._criu).dump(options, env=env)
        except OperationRefused as error:
            error.forget_log()  # it is removed with the directory
            raise

    # ---- after the dump ----------------------------------------------------

    def _publish(self, staging: Staging, launch: Launch, facts: dict[str, Any], shared: Sequence[Shared]) -> Return:
        """Publish the snapshot in the original, and end or go on."""
        from libcriu_py import clock
        from libcriu_py.criu.client import Criu
        from libcriu_py.images.readers import process_tree
        from libcriu_py.linux import processes
        from libcriu_py.memory.optimize import map_memory
        from libcriu_py.snapshot import installed
        from libcriu_py.snapshot.manifest import MEMORY, mapped_files
        from libcriu_py.snapshot.sources import loaded, own_sources

        if shared:
            from libcriu_py.findings.shared_stdio import redirect

            redirect(staging.images, os.getpid(), shared)
        clocks = clock.readings_for_copies()
        pids = sorted({task for process in process_tree(staging.images) for task in process.threads})
        compared = mapped_files(processes.processes(), without=[staging.path])
        # Each copy reads the main module of a named program again.
        modules = loaded(path0=self._program is None or self._program.kind != "module" or "path" in self._details)
        sources = own_sources(modules, main=self._program is None)
        facts["criu_version"] = str(Criu(self._criu).version())
        key = _key(os.path.join(staging.target, MEMORY))
        census = {} if self._census is None else {os.getpid(): self._census}
        mapped = map_memory(staging.images, staging.memory, key, wanted=self._memory, census=census)
        facts["memory"] = mapped.describe()
        launch = launch._replace(clocks=clocks, pids=tuple(pids), mapped=compared, sources=sources)
        launch = launch._replace(**installed.find(modules)._asdict())
        staging.publish(mapped.record(launch), facts)
        if self.ends_original:
            from libcriu_py.snapshot import notices

            if self._program is None:
                notices.taken(staging.target)
            # Cleanup at exit (atexit, finally, temporary directories) belongs to the copies.
            processes.end_with_descendants()
        return Return(Outcome.CONTINUED)


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def _key(path: str) -> str:
    """Return the key of a file for `inherit_fd`: its path without the leading slash (criu/files-reg.c)."""
    return path[1:]


_STDLIB = ("signal", "resource", "_locale", "select", "ctypes", "encodings.ascii")
_OWN_MODULES = (
    "criu.call criu.client criu.values dump.arrival dump.original dump.stdio findings.policies findings.shared_stdio "
    "findings.process linux.capabilities linux.processes linux.runtime_dir memory.owners program.start_variables "
    "snapshot.identity snapshot.manifest snapshot.request"
)


def _load_for_restore() -> None:
    """
    Import early what the dump and a copy's first steps need.

    Importing it in a copy, after `importlib` caches are invalidated, would read directories again and free the old
    listings there.
    """
    import importlib

    from libcriu_py.dump import arrival

    for name in (*_STDLIB, *(f"libcriu_py.{name}" for name in _OWN_MODULES.split())):
        importlib.import_module(name)
    arrival.prepare_title()
