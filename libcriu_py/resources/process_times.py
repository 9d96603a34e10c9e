"""
`psutil` and `prometheus_client`: the start times of a copy's processes.

psutil identifies a process by pid and start time, to detect reuse of the pid (psutil/__init__.py, _get_ident). A copy
has the pids of the dump, or natively another one, and a later start, so objects made before the dump would take its own
process for another.
prometheus_client computes a start time from the boot time that it reads at import; a copy may be on another machine,
and has its own clock.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from libcriu_py.linux import processes as tree
from libcriu_py.program.objects import live
from libcriu_py.resources.base import Arrival, BuiltIn


class PsutilProcesses(BuiltIn):
    """`psutil.Process` objects of this process and of its children."""

    def __init__(self) -> None:
        self._found: list[Any] = []
        self._pid = os.getpid()

    def before_dump(self) -> None:
        """Find the objects for processes in the dumped tree."""
        objects: list[Any] = live(sys.modules["psutil"].Process)
        own = set(tree.processes()) if objects else set()
        self._found = [item for item in objects if item.pid in own and item.is_running()]

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Identify their processes anew, and drop what was read from the dump's machine."""
        psutil: Any = sys.modules["psutil"]
        psutil._TOTAL_PHYMEM = None  # noqa: SLF001
        psutil._pmap = {}  # noqa: SLF001 - the cache of process_iter()
        linux: Any = sys.modules.get("psutil._pslinux")
        if hasattr(linux, "BOOT_TIME"):  # before psutil 7
            linux.BOOT_TIME = None
        for item in self._found:
            kept = item._hash  # noqa: SLF001
            # Not __init__(): that of psutil.Popen starts a program.
            item._init(os.getpid() if item.pid == self._pid else item.pid, _ignore_nsp=True)  # noqa: SLF001
            item._hash = kept  # noqa: SLF001 - it may be in a set
        self.in_original()


class PrometheusCollectors(BuiltIn):
    """The collectors of process_start_time_seconds."""

    def __init__(self) -> None:
        self._found: list[Any] = []

    def before_dump(self) -> None:
        """Find those that could read the boot time."""
        module: Any = sys.modules.get("prometheus_client.process_collector")
        objects: list[Any] = [] if module is None else live(module.ProcessCollector)
        self._found = [item for item in objects if item._btime]  # noqa: SLF001

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Read it again."""
        for item in self._found:
            item._btime = item._boot_time()  # noqa: SLF001
        self.in_original()
