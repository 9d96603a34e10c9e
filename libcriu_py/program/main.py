"""
Describe a main program as on a ``python`` command line, and run it as ``python`` would.

A restored interpreter is not fresh: its ``__main__``, ``sys.argv`` and ``sys.path`` are those of the dumped process.
`run_main` replaces all three, runs the program in a new ``__main__``, and lets its end (return, ``SystemExit``,
uncaught exception, Ctrl-C) reach the interpreter, so that output and exit status are those of a conventional start.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from io import open_code
from types import CodeType, ModuleType, TracebackType
from typing import Any, Literal, NamedTuple, NoReturn

from libcriu_py.program import code as main_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["script", "module", "command", "interpreter"]

STDIN = ("-", "")
"""Script names for a program that is read from standard input."""

CANNOT_OPEN = 2
"""Exit status of ``python`` if the script cannot be opened (``Modules/main.c``, pymain_run_file_obj)."""


class Program(NamedTuple):
    """
    The program to run as ``__main__``.

    Attributes:
        kind: "script" (a file, a directory or zip file with a ``__main__.py``, or "-" or nothing for standard input),
            "module" (as with ``-m``), "command" (as with ``-c``), or "interpreter" (Python's own command line follows).
        value: The path, the module's name, or the source; of an interpreter, what `dump.python_options` notes.
    """

    kind: Kind
    value: str

    def arguments(self) -> list[str]:
        """Return what follows the interpreter on a conventional command line, such as ``["-m", "http.server"]``."""
        if self.kind == "interpreter":
            return []
        if self.kind == "script":
            return [self.value] if self.value else []
        return ["-m" if self.kind == "module" else "-c", self.value]


class _State:
    """
    State that outlives a call.

    Attributes:
        path0: The entry of sys.path that belongs to the main program, for the next main program to replace.
        hook: Our hook in front of sys.excepthook. It must outlive its removal from sys: the interpreter calls it by a
            borrowed reference (``Python/pythonrun.c``, _PyErr_PrintEx).
        mains: The former ``__main__`` modules. The interpreter keeps using the first one without a reference of its
            own, and Python 3.11 crashes if it is freed.
    """

    path0: str | None = sys.path[0] if sys.path else None
    hook: Any = None
    mains: list[ModuleType] = []  # noqa: RUF012  # nothing derives from this class


def parse_program(args: Sequence[str]) -> tuple[Program, list[str]]:
    """
    Parse what follows ``python`` on a command line.

    Args:
        args: ``-m MODULE ...``, ``-c SOURCE ...``, ``SCRIPT ...``, or nothing, which means standard input.

    Returns:
        The program, and its own arguments.

    Raises:
        ValueError: Another option than -m or -c is given, or one of these without its value: only a new interpreter
            can take it.
    """
    if not args:
        return Program("script", ""), []
    first, *rest = args
    if first in STDIN or not first.startswith("-"):
        return Program("script", first), rest
    option, value = first[:2], first[2:]
    if option not in {"-m", "-c"}:
        message = f"{first}: a restored interpreter takes only -m and -c; its other options were fixed at its start"
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

    That is the directory of the script with symbolic links resolved, a directory or zip file itself, the working
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

    With -I or -P there is no such entry, and nothing changes.

    Args:
        entry: The new entry; None only removes the old one.
    """
    if sys.flags.isolated or getattr(sys.flags, "safe_path", False):
        return
    index = 0
    if _State.path0 in sys.path:
        index = sys.path.index(_State.path0)
        del sys.path[index]
    if entry is not None:
        sys.path.insert(index, entry)
    _State.path0 = entry


def run_main(program: Program, args: Sequence[str], *, path: str | None = None) -> None:
    """
    Run a program in a fresh ``__main__``, as if ``python`` had just been started with it.

    Exceptions of the program pass through for the interpreter to handle, so call this where no caller catches them. The
    interpreter's traceback starts with the program's own frames.

    Args:
        program: What to run.
        args: ``sys.argv[1:]`` of the program.
        path: The first entry of sys.path; None for `path0`.

    Raises:
        SystemExit: The program raised it, or cannot be opened (status 2) or found (status 1).
        BaseException: Whatever the program does not catch.
    """
    value = program.value
    # In place: a module imported earlier may hold on to the list (`def main(args=sys.argv)`).
    sys.argv[:] = [{"script": value, "module": "-m", "command": "-c"}[program.kind], *args]
    try:
        set_path0(path0(program) if path is None else path)
    except OSError:  # the working directory is gone: python starts without the entry
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
    """Run the program; in a traceback, its first frame follows this one."""
    if program.kind == "module" or _is_importable(program.value):
        # The interpreter calls this for -m, and for a directory or zip file with False (Modules/main.c,
        # pymain_run_module); anything else gives other messages, warnings and frames.
        run_as_main: Any = __import__("runpy")._run_module_as_main  # noqa: SLF001
        fresh_main()
        if program.kind == "module":
            run_as_main(program.value, True)
        else:
            run_as_main("__main__", False)
    elif program.kind == "script" and program.value in STDIN and sys.stdin is not None and sys.stdin.isatty():
        from libcriu_py.program.interactive import session

        fresh_main().__loader__ = BuiltinImporter
        session()
    else:
        code = _load(program)
        exec(code, sys.modules["__main__"].__dict__)  # noqa: S102  # a main program is code to run


def _load(program: Program) -> CodeType:
    """Compile the program and prepare ``__main__`` for it."""
    if program.kind == "command" or program.value in STDIN:
        main = fresh_main()
        main.__loader__ = BuiltinImporter  # the class, as in a real start
        if program.kind == "command":
            return _compile_command(program.value)
        main.__file__ = "<stdin>"
        main.__dict__["__cached__"] = None
        source = b"" if sys.stdin is None else sys.stdin.buffer.read()
        return compile(source, "<stdin>", "exec", dont_inherit=True)
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
    """Return an absolute path; keep "./", as the interpreter does (``Python/fileutils.c``, _Py_abspath)."""
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def _read(filename: str) -> bytes:
    """Return the bytes of a script."""
    with open_code(filename) as file:
        return file.read()


def _cannot_open(filename: str, error: OSError) -> NoReturn:
    """Exit as python does for a script that cannot be opened."""
    problem = f"{sys.executable}: can't open file {filename!r}: [Errno {error.errno}] {error.strerror}"
    sys.stderr.write(problem + "\n")
    raise SystemExit(CANNOT_OPEN) from None


def _compile_command(source: str) -> CodeType:
    """Compile the source of ``-c``; from Python 3.13 on, let tracebacks show its lines, as the interpreter does."""
    if sys.version_info >= (3, 13):
        import linecache

        lines = source.splitlines(keepends=True)
        linecache.cache["<string>"] = (len(source), None, lines, "<string>")
    return main_code.compiled(source, "<string>")


def precompile(program: Program) -> None:
    """
    Compile a program for copies, if `_load` would compile it.

    Args:
        program: A script that is a source file, or a command; it must compile without a warning.
    """
    if program.kind == "command":
        main_code.precompile(program.value, "<string>")
    elif program.kind == "script" and program.value not in STDIN and not program.value.endswith(".pyc"):
        filename = absolute(program.value)
        main_code.precompile(_read(filename), filename)


class Main(NamedTuple):
    """
    A main module that was made before the dump, for copies to run if its file is as it was.

    Attributes:
        code: Its code.
        module: The new `__main__`. Not its namespace: while others hold that, the interpreter does not clear it.
        file: The file, as a start would name it; empty for a command.
        real: The same without symbolic links.
        source: What the code was compiled from.
    """

    code: CodeType
    module: ModuleType
    file: bytes
    real: bytes
    source: bytes


def prepare_main(program: Program, *, path: str | None = None) -> Main | None:
    """
    Do before the dump what `run_main` does up to the program's code.

    Where a copy finds the file changed, it calls `run_main`, which begins anew.

    Args:
        program: What to run.
        path: The first entry of sys.path; None for `path0`.

    Returns:
        The main module; None if it cannot be known before a copy starts.
    """
    filename = program.value
    source = main_code.source_of(filename)
    if program.kind != "script" or not os.path.isabs(filename) or source is None:
        return None
    sys.argv[:] = [filename]
    set_path0(path0(program) if path is None else path)
    try:
        code = _load(program)
    except (SystemExit, SyntaxError, ValueError):
        return None  # it has just been changed
    return Main(code, sys.modules["__main__"], os.fsencode(filename), os.fsencode(os.path.realpath(filename)), source)


def hide_frames(error: BaseException) -> None:
    """Make the interpreter show an exception of a program that `prepare_main` has prepared as the program's alone."""
    _leave_us_out(error, error.__traceback__)


def fresh_main() -> ModuleType:
    """
    Replace ``__main__`` by a new, empty module.

    Returns:
        The module, with the attributes that the interpreter sets at its start (``Python/pylifecycle.c``,
        add_main_module).
    """
    _State.mains.append(sys.modules["__main__"])
    main = ModuleType("__main__")
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    main.__builtins__ = sys.modules["builtins"]  # type: ignore[attr-defined]
    if sys.modules.get("__mp_main__") is sys.modules["__main__"]:
        sys.modules["__mp_main__"] = main  # the name under which multiprocessing unpickles objects of __main__
    sys.modules["__main__"] = main
    return main


def forget_mains() -> None:
    """Free the modules that `fresh_main` replaced, except the first, which the interpreter keeps using."""
    del _State.mains[1:]


def _is_importable(path: str) -> bool:
    """Return whether a path is a directory or zip file, which runs through its ``__main__`` module."""
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
    """Forget cached directory listings: anything may have changed between checkpoint and restore."""
    for entry, finder in list(sys.path_importer_cache.items()):
        if finder is None:
            del sys.path_importer_cache[entry]
        elif hasattr(finder, "invalidate_caches"):
            finder.invalidate_caches()


def _leave_us_out(error: BaseException, shown: TracebackType | None = None) -> None:
    """
    Make the interpreter show an uncaught exception without the frames of this package.

    The interpreter itself must show it: only it ends by SIGINT after a KeyboardInterrupt, and handles a missing or
    failing sys.excepthook. It adds each frame that the exception passes through, so a hook in front of the program's
    cuts our frames off at the last moment.
    """
    hook = getattr(sys, "excepthook", None)
    if hook is None:
        return

    kept: list[Any] = [error, shown]

    def show(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        sys.excepthook = hook
        known, of_program = kept
        kept.clear()  # this function outlives the rest, which must be freed: files are flushed then
        own = trace if value is not known else of_program or _program_frames(trace)
        value.__traceback__ = own
        sys.last_traceback = own
        hook(kind, value, own)

    sys.excepthook = _State.hook = show


def _program_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that belongs to the program."""
    rest = trace
    while rest is not None:
        if rest.tb_frame.f_code is _start.__code__:
            rest = rest.tb_next
            break
        rest = rest.tb_next
    while rest is not None and rest.tb_frame.f_code.co_filename in {__file__, main_code.__file__}:
        rest = rest.tb_next  # for a SyntaxError of the program, raised in our compile()
    return rest
