"""
`psutil` and `prometheus_client`: when the processes of a copy began.

psutil knows a process by its pid and the time at which it began, so that none is taken for another that has its pid now
(psutil/__init__.py, _get_ident). A copy has the pids of the dump, and began later: to objects made before, its own
process would be such another. prometheus_client adds the time since the boot at which a process began to the time of
the boot, which it reads when it is imported; a copy may be on another machine, and has a clock of its own.
"""

from __future__ import annotations

import sys
from typing import Any

from libcriu_py.linux import processes as tree
from libcriu_py.program.objects import live
from libcriu_py.resources.base import Arrival, BuiltIn


class PsutilProcesses(BuiltIn):
    """`psutil.Process` objects of this process and of its children."""

    def __init__(self) -> None:
        self._found: list[Any] = []

    def let_go(self) -> None:
        """Find those of processes that will be in the copies too."""
        objects: list[Any] = live(sys.modules["psutil"].Process)
        own = set(tree.processes()) if objects else set()
        self._found = [item for item in objects if item.pid in own and item.is_running()]

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Let them look at their processes anew, and forget what was read of the dump's machine."""
        psutil: Any = sys.modules["psutil"]
        psutil._TOTAL_PHYMEM = None  # noqa: SLF001
        psutil._pmap = {}  # noqa: SLF001 - the processes that process_iter() knows
        linux: Any = sys.modules.get("psutil._pslinux")
        if hasattr(linux, "BOOT_TIME"):  # before psutil 7
            linux.BOOT_TIME = None
        for item in self._found:
            kept = item._hash  # noqa: SLF001
            # Not __init__(): that of psutil.Popen starts a program.
            item._init(item.pid, _ignore_nsp=True)  # noqa: SLF001
            item._hash = kept  # noqa: SLF001 - it may be in a set
        self.come_back()

    def come_back(self) -> None:
        """Do nothing: the original is who it was."""
        self._found = []


class PrometheusCollectors(BuiltIn):
    """The collectors of process_start_time_seconds."""

    def __init__(self) -> None:
        self._found: list[Any] = []

    def let_go(self) -> None:
        """Find those that could read the time of the boot."""
        module: Any = sys.modules.get("prometheus_client.process_collector")
        objects: list[Any] = [] if module is None else live(module.ProcessCollector)
        self._found = [item for item in objects if item._btime]  # noqa: SLF001

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Read it again."""
        for item in self._found:
            item._btime = item._boot_time()  # noqa: SLF001
        self.come_back()

    def come_back(self) -> None:
        """Do nothing: the original's boot was when it was."""
        self._found = []
