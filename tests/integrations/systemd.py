"""A stand-in for systemd: what it does with a socket unit and its service (systemd.socket(5), sd_listen_fds(3))."""

from __future__ import annotations

import configparser
import os
import select
import shlex
import signal
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FIRST = 3
"""SD_LISTEN_FDS_START"""


def read(unit: Path) -> dict[str, str]:
    """Return the settings of a unit, all of them of one section but for those of [Unit] and [Install]."""
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.read_text(encoding="utf-8"))
    return {**parser["Unit"], **parser["Socket" if unit.suffix == ".socket" else "Service"]}


class Manager:
    """
    Holds the socket, starts the service when there is a connection, and waits for its end before the next look.

    Attributes:
        starts: The pids of what it has started.
        statuses: How those ended.
    """

    def __init__(self, socket_unit: Path, service_unit: Path, env: dict[str, str], output: Path) -> None:
        self._settings = read(service_unit)
        self._env, self._output = env, output
        wanted = read(socket_unit)
        assert wanted["Accept"] == "no"
        host, _, port = wanted["ListenStream"].rpartition(":")
        self._socket = socket.create_server((host, int(port)), backlog=4096)
        self.starts: list[int] = []
        self.statuses: list[int] = []
        self._stop_read, self._stop_write = os.pipe()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Manager:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._stop_write)
        self._thread.join()
        os.close(self._stop_read)
        self._socket.close()

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket.fileno(), self._stop_read], [], [])
            if self._stop_read in ready:
                return
            self._serve()

    def _serve(self) -> None:
        """Start the service, and wait until it has ended; it is stopped where this is."""
        pid = os.fork()
        if pid == 0:
            self._become_service()
        self.starts.append(pid)
        pidfd = os.pidfd_open(pid)
        ready, _, _ = select.select([pidfd, self._stop_read], [], [])
        if pidfd not in ready:
            os.kill(pid, signal.SIGTERM)
        os.close(pidfd)
        self.statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    def _become_service(self) -> None:
        """Do what systemd's executor does: descriptors from 3 on, blocking, and variables that name this process."""
        try:
            os.setsid()
            null, log = os.open(os.devnull, os.O_RDONLY), os.open(self._output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            kept = os.dup(self._socket.fileno())
            for fd, target in ((null, 0), (log, 1), (log, 2), (kept, FIRST)):
                os.dup2(fd, target)
            os.closerange(FIRST + 1, 65536)
            os.set_blocking(FIRST, True)
            os.chdir(self._settings["WorkingDirectory"])
            words = shlex.split(self._settings["ExecStart"])
            listen = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web.socket"}
            os.execve(words[0], words, {**self._env, **listen})
        finally:
            os._exit(203)  # EXIT_EXEC of systemd
