"""
Name a main program as ``python`` would be given it, and run it as ``python`` would.

A restored interpreter is not fresh: its ``__main__``, ``sys.argv`` and ``sys.path`` are those of whoever was
checkpointed. `run_main` puts the three right, runs the program in a new ``__main__``, and lets its end (return,
``SystemExit``, uncaught exception, Ctrl-C) reach the interpreter such that output and exit status are those of a
conventional start.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from io import open_code
from types import CodeType, FrameType, ModuleType, TracebackType
from typing import Any, Literal, NamedTuple, NoReturn

from libcriu_py.program import code as main_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["script", "module", "command"]

STDIN = ("-", "")
"""The script names that mean: read the program from standard input."""

CANNOT_OPEN = 2
"""Exit status of ``python`` when the script cannot be opened (``Modules/main.c``, pymain_run_file_obj)."""


class Program(NamedTuple):
    """
    What is to run as ``__main__``.

    Attributes:
        kind: "script" (a file, a directory or zip file with a ``__main__.py``, or "-" or nothing for standard input),
            "module" (as with ``-m``), "command" (as with ``-c``).
        value: The path, the module's name, or the source.
    """

    kind: Kind
    value: str

    def arguments(self) -> list[str]:
        """
        Return what is put after the interpreter on a conventional command line.

        Returns:
            For example ``["-m", "http.server"]``.
        """
        if self.kind == "script":
            return [self.value] if self.value else []
        return ["-m" if self.kind == "module" else "-c", self.value]


class _State:
    """
    What outlives a call.

    Attributes:
        path0: The entry of sys.path that belongs to the main program, so that the next main program can replace it.
        hook: Our hook in front of sys.excepthook. The interpreter calls it by a borrowed reference
            (``Python/pythonrun.c``, _PyErr_PrintEx), so it has to live on when it takes itself out of sys.
        mains: The modules that were ``__main__`` before. The interpreter goes on using the first one, without a
            reference of its own: Python 3.11 crashes when it is freed.
    """

    path0: str | None = sys.path[0] if sys.path else None
    hook: Any = None
    mains: list[ModuleType] = []  # noqa: RUF012  # nothing derives from this class


def parse_program(args: Sequence[str]) -> tuple[Program, list[str]]:
    """
    Read program and arguments from what is put after ``python`` on a command line.

    Args:
        args: ``-m MODULE ...``, ``-c SOURCE ...``, ``SCRIPT ...``, or nothing, which means standard input.

    Returns:
        The program, and the arguments that are left for it.

    Raises:
        ValueError: An option of the interpreter other than -m and -c is given, or one of these without its value.
    """
    if not args:
        return Program("script", ""), []
    first, *rest = args
    if first in STDIN or not first.startswith("-"):
        return Program("script", first), rest
    option, value = first[:2], first[2:]
    if option not in {"-m", "-c"}:
        message = f"{first}: not an option of a restored interpreter, whose options are those it was started with"
        raise ValueError(message)
    if not value:
        if not rest:
            message = f"argument expected for the {option} option"
            raise ValueError(message)
        value, *rest = rest
    return Program("module" if option == "-m" else "command", value), rest


def path0(program: Program) -> str:
    """
    Return what ``python`` would put first on ``sys.path`` for this program.

    Args:
        program: What is to run.

    Returns:
        The directory of the script with symbolic links resolved, a directory or zip file itself, the working
        directory for a module, or an empty string.

    Raises:
        OSError: The working directory is gone.
    """
    if program.kind == "module":
        return os.getcwd()
    if program.kind == "command" or program.value in STDIN:
        return ""
    if _is_importable(program.value):
        return absolute(program.value)
    return os.path.dirname(os.path.realpath(program.value))


def set_path0(entry: str | None) -> None:
    """
    Replace the entry of ``sys.path`` that belongs to the main program.

    Nothing is changed where Python was started with -I or -P, which have no such entry.

    Args:
        entry: The new entry; None only removes the old one.
    """
    if sys.flags.isolated or getattr(sys.flags, "safe_path", False):
        return
    place = 0
    if _State.path0 in sys.path:
        place = sys.path.index(_State.path0)
        del sys.path[place]
    if entry is not None:
        sys.path.insert(place, entry)
    _State.path0 = entry


def run_main(program: Program, args: Sequence[str], *, path: str | None = None) -> None:
    """
    Run a program in a fresh ``__main__``, as if ``python`` had just been started with it.

    What the program raises is raised here too, for the interpreter to deal with as always: call this where nothing
    below catches exceptions. A traceback that comes of it starts with the program's own frames.

    Args:
        program: What to run.
        args: ``sys.argv[1:]`` of the program.
        path: What to put first on sys.path instead of `path0`.

    Raises:
        SystemExit: The program asked for it, or cannot be opened or found (status 2 or 1, as python has it).
        BaseException: Whatever the program does not catch.
    """
    value = program.value
    # In place: a module that was imported before may hold on to the list (`def main(args=sys.argv)`).
    sys.argv[:] = [{"script": value, "module": "-m", "command": "-c"}[program.kind], *args]
    try:
        set_path0(path0(program) if path is None else path)
    except OSError:  # the working directory is gone: python goes without the entry
        set_path0(None)
    _forget_stale_finders()
    try:
        _start(program)
    except SystemExit:
        raise
    except BaseException as error:
        _leave_us_out(error)
        raise


def _start(program: Program) -> None:
    """Run the program; its first frame follows this one's."""
    if program.kind == "module" or _is_importable(program.value):
        # What the interpreter itself calls for -m, and for a directory or zip file with the second argument False
        # (Modules/main.c, pymain_run_module): only this gives the same messages, warnings and frames.
        run_as_main: Any = __import__("runpy")._run_module_as_main  # noqa: SLF001
        fresh_main()
        if program.kind == "module":
            run_as_main(program.value, True)
        else:
            run_as_main("__main__", False)
    else:
        code = _load(program)
        exec(code, sys.modules["__main__"].__dict__)  # noqa: S102  # that is what a main program is


def _load(program: Program) -> CodeType:
    """Compile the program and prepare ``__main__`` for it."""
    if program.kind == "command" or program.value in STDIN:
        main = fresh_main()
        main.__loader__ = BuiltinImporter  # the class, as in a real start
        if program.kind == "command":
            return _compile_command(program.value)
        main.__file__ = "<stdin>"
        main.__dict__["__cached__"] = None
        return _read_stdin()
    filename = absolute(program.value)
    loader: Any = SourcelessFileLoader if filename.endswith(".pyc") else SourceFileLoader
    main = fresh_main()
    loading = main.__loader__ = loader("__main__", filename)
    main.__file__ = filename
    main.__dict__["__cached__"] = None
    try:
        if loader is SourcelessFileLoader:
            code: CodeType = loading.get_code("__main__")
            return code
        return main_code.compiled(_read(filename), filename)
    except OSError as error:
        _cannot_open(filename, error)


def absolute(path: str) -> str:
    """Return an absolute path, with "./" kept as the interpreter keeps it (``Python/fileutils.c``, _Py_abspath)."""
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def _read_stdin() -> CodeType:
    """Compile what standard input has; at a terminal, hold a dialogue as the interpreter does."""
    if sys.stdin.isatty():
        dialogue = "import code as _code; _code.interact(local={k: v for k, v in globals().items() if k != '_code'})"
        return compile(dialogue, "<stdin>", "exec", dont_inherit=True)
    return compile(sys.stdin.buffer.read(), "<stdin>", "exec", dont_inherit=True)


def _read(filename: str) -> bytes:
    """Return the bytes of a script."""
    with open_code(filename) as file:
        return file.read()


def _cannot_open(filename: str, error: OSError) -> NoReturn:
    """End as python does for a script that cannot be opened."""
    problem = f"{sys.executable}: can't open file {filename!r}: [Errno {error.errno}] {error.strerror}"
    sys.stderr.write(problem + "\n")
    raise SystemExit(CANNOT_OPEN) from None


def _compile_command(source: str) -> CodeType:
    """Compile the source of ``-c``; tracebacks show its lines from Python 3.13 on, as the interpreter's do."""
    if sys.version_info >= (3, 13):
        import linecache

        lines = source.splitlines(keepends=True)
        linecache.cache["<string>"] = (len(source), None, lines, "<string>")
    return main_code.compiled(source, "<string>")


def precompile(program: Program) -> None:
    """
    Compile a program for copies, where that is done by `_load` and gives no warning.

    Args:
        program: A script that is a file of source, or the source of a command.
    """
    if program.kind == "command":
        main_code.precompile(program.value, "<string>")
    elif program.kind == "script" and program.value not in STDIN and not program.value.endswith(".pyc"):
        filename = absolute(program.value)
        main_code.precompile(_read(filename), filename)


def fresh_main() -> ModuleType:
    """
    Put a new, empty ``__main__`` in the place of the present one.

    Returns:
        The module, with the attributes that the interpreter gives it at start (``Python/pylifecycle.c``,
        add_main_module).
    """
    _State.mains.append(sys.modules["__main__"])
    main = ModuleType("__main__")
    main.__builtins__ = sys.modules["builtins"]  # type: ignore[attr-defined]
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    if sys.modules.get("__mp_main__") is sys.modules["__main__"]:
        sys.modules["__mp_main__"] = main  # so named by multiprocessing as it is imported, for what it unpickles
    sys.modules["__main__"] = main
    return main


def forget_mains() -> None:
    """Let go of the modules that `fresh_main` replaced, but for the one that the interpreter itself goes on using."""
    del _State.mains[1:]


def _is_importable(path: str) -> bool:
    """Return whether a path is run through its ``__main__`` module: a directory or a zip file."""
    if path in STDIN:
        return False
    if os.path.isdir(path):
        return True
    if not main_code.may_be_archive(path):
        return False
    from zipimport import ZipImportError, zipimporter

    try:
        zipimporter(path)
    except ZipImportError:
        return False
    return True


def _forget_stale_finders() -> None:
    """Forget what finders know of directories: between checkpoint and restore anything may have changed."""
    for entry, finder in list(sys.path_importer_cache.items()):
        if finder is None:
            del sys.path_importer_cache[entry]
        elif hasattr(finder, "invalidate_caches"):
            finder.invalidate_caches()


def _leave_us_out(error: BaseException) -> None:
    """
    Arrange that the interpreter shows an uncaught exception without the frames of this package.

    The interpreter must still be the one to show it: it alone ends by SIGINT after a KeyboardInterrupt, and copes
    with a missing or failing sys.excepthook. It adds the frames that the exception passes through on its way down,
    so they are cut off at the last moment, by a hook in front of the program's.
    """
    hook = getattr(sys, "excepthook", None)
    if hook is None:
        return

    def show(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        sys.excepthook = hook
        own = _program_frames(trace) if value is error else trace
        value.__traceback__ = own
        sys.last_traceback = own
        hook(kind, value, own)

    sys.excepthook = _State.hook = show


def _program_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that belongs to the program."""
    rest = trace
    while rest is not None:
        if _is_start(rest.tb_frame):
            rest = rest.tb_next
            break
        rest = rest.tb_next
    while rest is not None and rest.tb_frame.f_code.co_filename in {__file__, main_code.__file__}:
        rest = rest.tb_next  # a SyntaxError of the program, raised in our compile()
    return rest


def _is_start(frame: FrameType) -> bool:
    """Return whether the program's frames follow this one."""
    return frame.f_code is _start.__code__
