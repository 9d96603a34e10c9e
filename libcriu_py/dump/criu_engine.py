"""The dump by CRIU."""

from __future__ import annotations

import functools
import os
import time
from typing import TYPE_CHECKING, Any

from libcriu_py.dump.engine import SnapshotEngine, load_for_copies
from libcriu_py.errors import UnsupportedFeature
from libcriu_py.hooks.lifecycle import Outcome, Return

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from libcriu_py.dump.original import Original
    from libcriu_py.findings.shared_stdio import Shared
    from libcriu_py.privilege.mode import Privilege
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


class CriuEngine(SnapshotEngine):
    """
    The dump of this process by CRIU.

    Thread safety: one dump at a time; criu freezes other threads wherever they are.
    """

    name = "criu"
    why_not_native: str | None = None
    """Why the native engine did not take it, if it was asked for."""

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
        from libcriu_py.dump import elsewhere, title
        from libcriu_py.privilege.decision import decide_dump

        try:
            decision = decide_dump(find_criu())
        except UnsupportedFeature:
            elsewhere.start_again(self.why_not_native, self.abandon)
            raise
        self._criu = decision.criu
        self._mode: Privilege = decision.mode
        load_for_copies(OURS)
        title.prepare()
        if self._staging is None:
            self.reserve()

    # ---- the dump ----------------------------------------------------------

    def take(self) -> Return:
        """
        Dump this process.

        Raises:
            OperationRefused: criu refused; the process is as it was.
            TransportError: criu could not be reached.
        """
        from libcriu_py.criu.native import leave_call
        from libcriu_py.criu.values import DumpOutcome
        from libcriu_py.dump import arrival, stdio
        from libcriu_py.dump.original import Original
        from libcriu_py.linux import processes, this_process

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
            calls: list[Callable[[], object]] = [leave_call]
            if original.stopped:
                calls.append(functools.partial(processes.resume, original.stopped))
            expect = functools.partial(self._handover.expect, self.departure, calls=calls, unwanted=images)
            outcome, has_timers = None, this_process.suspend_timers()
            try:
                outcome = self._ask_criu(images, original.shared, expect)
            finally:
                if has_timers:
                    this_process.resume_timers(in_copy=outcome is DumpOutcome.RESTORED)
                self._handover.close_unless_ended(images)
            if outcome is DumpOutcome.RESTORED:
                if not self._handover.has_run():
                    processes.resume(original.stopped)
                return self._handover.receive(dumped_at, before_start=stdio.reopen)
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
        from libcriu_py.findings import is_report_wanted, refuse, show_and_end
        from libcriu_py.linux import processes

        if is_report_wanted():
            show_and_end(self._options, self.why_not_native)
        refuse(self._options, by_criu=True)
        staging.populate()
        processes.leave_foreign_session()
        return self._launch_of(staging), self._facts()

    def _restore_original(self, original: Original, *, dumped: bool) -> None:
        if self._handover is not None:
            self._handover.close()
        original.restore(dumped=dumped)

    def _launch_of(self, staging: Staging) -> Launch:
        """Collect for the launch record what is no longer known after the dump."""
        from libcriu_py.snapshot.manifest import SLOTS

        options = {name: self._options.get(name) for name in _ALSO_ON_RESTORE}
        return self._launch(
            mode=self._mode.value,
            slots=tuple(_key(staging.slot(name)) for name in SLOTS),
            images_key=_key(staging.images),
            restore_options={name: value for name, value in options.items() if isinstance(value, int)},
        )

    def _ask_criu(self, images: int, shared: Sequence[Shared], expect: Callable[[], None]) -> Any:
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
                    return Criu(service_fd=sockets.connect(service)).dump(options, before_wait=expect)
            env = {os.fsdecode(name): os.fsdecode(value) for name, value in dump_environment(self._criu).items()}
            with traceable():
                return Criu(self._criu).dump(options, env=env, before_wait=expect)
        except OperationRefused as error:
            error.forget_log()  # it is removed with the directory
            raise

    # ---- after the dump ----------------------------------------------------

    def _publish(self, staging: Staging, launch: Launch, facts: dict[str, Any], shared: Sequence[Shared]) -> Return:
        """Publish the snapshot in the original, and end or go on."""
        from libcriu_py import clock
        from libcriu_py.criu.client import Criu
        from libcriu_py.dump import exclusive
        from libcriu_py.images import states
        from libcriu_py.images.readers import process_tree
        from libcriu_py.linux import processes
        from libcriu_py.memory.optimize import map_memory
        from libcriu_py.snapshot.manifest import MEMORY, mapped_files

        if shared:
            from libcriu_py.findings.shared_stdio import redirect

            redirect(staging.images, os.getpid(), shared)
        states.resume(staging.images, os.getpid())  # a Ctrl-Z at that moment is not for copies
        exclusive.give_own_ports(staging.images)
        clocks = clock.readings_for_copies()
        pids = [task for process in process_tree(staging.images) for task in process.threads]
        compared = mapped_files(processes.processes(), without=[staging.path])
        facts["why_not_native"] = self.why_not_native
        facts["criu_version"] = str(Criu(self._criu).version())
        key = _key(os.path.join(staging.target, MEMORY))
        census = {} if self._census is None else {os.getpid(): self._census}
        mapped = map_memory(staging.images, staging.memory, key, wanted=self._memory, census=census)
        facts["memory"] = mapped.describe()
        launch = self._with_modules(launch._replace(clocks=clocks, pids=tuple(pids), mapped=compared))
        launch = launch._replace(**exclusive.find(staging.images)._asdict())
        staging.publish(mapped.record(launch), facts)
        if self.ends_original:
            from libcriu_py.snapshot import notices

            if self._program is None:
                notices.taken(staging.target)
            # Cleanup at exit (atexit, finally, temporary directories) belongs to the copies.
            processes.end_with_descendants()
        return Return(Outcome.CONTINUED)


def _key(path: str) -> str:
    """Return the key of a file for `inherit_fd`: its path without the leading slash (criu/files-reg.c)."""
    return path[1:]


OURS = "criu.call criu.client criu.values dump.original findings.policies findings.shared_stdio linux.runtime_dir"
