"""
An interactive session, as `python` begins one at a terminal (Modules/main.c, pymain_run_python).

Only interpreters that are saved have it in memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import traceback
from importlib.machinery import SourceFileLoader
from typing import Any

_MORE = 'Type "help", "copyright", "credits" or "license" for more information.'


def session() -> None:
    """Begin a session in `__main__`, and return at its end."""
    main: dict[str, Any] = sys.modules["__main__"].__dict__
    if not sys.flags.quiet:
        more = f"{_MORE}\n" if "site" in sys.modules and not sys.flags.no_site else ""
        sys.stderr.write(f"Python {sys.version} on {sys.platform}\n{more}")
        sys.stderr.flush()
    if not sys.flags.isolated:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - the lines of the terminal are read by it from here on
    _run_startup_file(main)
    hook = getattr(sys, "__interactivehook__", None)
    if hook is not None:
        try:
            hook()
        except Exception:  # noqa: BLE001 - Python shows it and goes on
            sys.stderr.write("Failed calling sys.__interactivehook__\n")
            traceback.print_exc()
    if sys.version_info >= (3, 13) and not _variable("PYTHON_BASIC_REPL"):
        import runpy

        run_as_main: Any = runpy._run_module_as_main  # type: ignore[attr-defined]  # noqa: SLF001
        run_as_main("_pyrepl", False)
        return
    flags = (ctypes.c_int * 2)(0, sys.version_info[1])  # of PyCompilerFlags: the features of this version
    stdin = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stdin")
    sys.stdout.flush()
    ctypes.pythonapi.PyRun_AnyFileExFlags(stdin, b"<stdin>", 0, ctypes.byref(flags))


def _variable(name: str) -> str:
    return "" if sys.flags.ignore_environment else os.environ.get(name, "")


def _run_startup_file(main: dict[str, Any]) -> None:
    """Run the file of PYTHONSTARTUP, whose names the session has."""
    name = _variable("PYTHONSTARTUP")
    if not name:
        return
    try:
        with open(name, "rb") as file:
            main["__loader__"] = SourceFileLoader("__main__", name)  # which Python leaves there
            exec(compile(file.read(), name, "exec", dont_inherit=True), main)  # noqa: S102 - it is code to run
    except OSError as error:
        sys.stderr.write(f"Could not open PYTHONSTARTUP\n{type(error).__name__}: {error}\n")
    except Exception as error:  # noqa: BLE001 - Python shows it and goes on
        trace = error.__traceback__.tb_next if error.__traceback__ is not None else None
        sys.excepthook(type(error), error.with_traceback(trace), trace)
