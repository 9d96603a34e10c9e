"""What a copy of a prepared program does in the place of returning from the dump."""

from __future__ import annotations

import os
import sys

from libcriu_py.hooks.lifecycle import Continuation
from libcriu_py.program import noting
from libcriu_py.program.main import Program, hide_frames, parse_program, prepare_main, run_main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class ProgramContinuation(Continuation):
    """The program, which a copy runs without returning from the dump."""

    def __init__(self, program: Program, path: str | None, ending: str, entry: str | None) -> None:
        self.path = path
        self._program = program
        self._is_fast = ending == "fast"
        self._watch = None if entry is None else noting.watch(entry)
        self.main = prepare_main(program, path=path)
        self.has_run = False
        self.error: BaseException | None = None

    def raise_error(self) -> None:
        """Raise what the program has raised, and keep nothing of its frames: this object is never collected."""
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error

    def ending(self) -> object:
        """Return what C needs to end a copy that has nothing to do at its end."""
        from libcriu_py.exit import for_ending

        if self._watch is not None:
            noting.begin(self._program.kind)  # by now the modules of this package are loaded, too
        return for_ending(self._watch) if self._is_fast else None

    def run(self) -> None:
        """Run the program where C has not prepared that."""
        _run(self._program, self.path)

    def run_instead(self, asked: Program | None) -> None:
        """Run the program that a request asks for, or the snapshot's own, where the dump has returned."""
        try:
            _run(asked or self._program, self.path)
        finally:
            noting.end(self._watch)

    def ended(self, error: BaseException | None) -> None:
        """End as the program did, or note how, for where the dump was called."""
        noting.end(self._watch)
        code: object = error.code if isinstance(error, SystemExit) else None
        if self._is_fast and (
            error is None or (isinstance(error, SystemExit) and (code is None or isinstance(code, int)))
        ):
            from libcriu_py.exit import exit_fast

            exit_fast(code if isinstance(code, int) else 0)
        self.has_run = True
        self.error = error
        if error is None or isinstance(error, SystemExit) or self.main is None or error.__traceback__ is None:
            return
        if error.__traceback__.tb_frame.f_code is self.main.code:
            hide_frames(error)


def _run(program: Program, path: str | None) -> None:
    """Run a program in the copy, with the arguments of the restore."""
    if program.kind != "interpreter":
        run_main(program, sys.argv[1:], path=path)
        return
    try:
        program, args = parse_program(sys.argv[1:])
    except ValueError:
        program, args = _follow_options(sys.argv[1:])
    run_main(program, args)


def _follow_options(arguments: Sequence[str]) -> tuple[Program, list[str]]:
    """Follow options of Python; the launcher has refused others where it may start a new interpreter."""
    from libcriu_py.dump import python_options

    try:
        return python_options.follow(arguments)
    except ValueError:
        os.execv(sys.executable, [sys.executable, *arguments])
