"""
Terminal settings that libraries read only once.

`rich`: a console reads the colours of its terminal, NO_COLOR and COLUMNS when it is made (rich/console.py,
Console.__init__), and on each write whether it writes to a terminal. Values that match what it would have read are read
again; values that the program chose stay. click, shutil.get_terminal_size and argparse read each time.

`readline` reads TERM and the width when it is loaded (rl_initialize, readline.c), and is made to do so again.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from libcriu_py.program.objects import live
from libcriu_py.resources.base import Arrival, BuiltIn

if TYPE_CHECKING:
    from collections.abc import Callable


class Terminals(BuiltIn):
    """The consoles of rich, and readline."""

    def __init__(self) -> None:
        self._consoles: list[tuple[Any, bool, bool, bool]] = []
        self._reset_readline: Callable[[None], object] | None = None

    def before_dump(self) -> None:
        """Find the consoles, and which values each has read itself."""
        if "readline" in sys.modules:
            import ctypes

            # From the library that the module is linked to: GNU readline or editline.
            self._reset_readline = ctypes.CDLL(getattr(sys.modules["readline"], "__file__", None)).rl_reset_terminal
        console_module: Any = sys.modules.get("rich.console")
        for console in live(console_module.Console) if console_module is not None else ():
            self._consoles.append(
                (
                    console,
                    console._color_system == console._detect_color_system(),  # noqa: SLF001
                    console.no_color == _no_color(),
                    console._width == _columns(),  # noqa: SLF001
                )
            )

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Read the values again."""
        if self._reset_readline is not None:
            self._reset_readline(None)
        for console, colors, no_color, width in self._consoles:
            if no_color:
                console.no_color = _no_color()
            if width:
                console._width = _columns()  # noqa: SLF001
            if colors:
                console._color_system = console._detect_color_system()  # noqa: SLF001
        self.in_original()


def _no_color() -> bool:
    return os.environ.get("NO_COLOR", "") != ""


def _columns() -> int | None:
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdigit() else None
