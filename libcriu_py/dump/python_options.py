"""
Options of Python's command line, for copies of an interpreter.

The launcher decides whether a copy can be what the options ask for (csrc/restore/interpreter.c): those that an
interpreter reads only at its start have to be as at the dump, which `facts` notes. Here a copy follows the others.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from libcriu_py.dump import stdio
from libcriu_py.linux.this_process import set_flag
from libcriu_py.program import preload, reads
from libcriu_py.program.main import Program, parse_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_WITH_VALUE = "cmWX"
_UTF8 = (".UTF-8", ".UTF8")

_in_force: tuple[str, ...] = ()
"""The options of the dump that are fixed."""
_filters: tuple[object, ...] = ()
"""The filters of warnings before any module was preloaded."""


def fixed(options: Sequence[str]) -> list[str]:
    """
    Return those options that a copy cannot follow unless they were in force at the dump, one letter a word.

    Args:
        options: What is between ``python`` and its program.

    Raises:
        ValueError: A word is no option.
    """
    found, rest = _split(options)
    if rest:
        message = f"{rest[0]} is no option of Python"
        raise ValueError(message)
    return _fixed(found)


def _fixed(options: Sequence[tuple[str, str]]) -> list[str]:
    return [f"-{name}{value}" for name, value in options if name not in "BuqW" and not _follows(name, value)]


def _follows(name: str, value: str) -> bool:
    """Return whether `_extra` can do what -X asks for."""
    key, _, rest = value.partition("=")
    is_followed = value in {"faulthandler", "tracemalloc"} or key == "pycache_prefix"
    return name == "X" and (is_followed or (key == "tracemalloc" and rest in {*"123456789"}))


def _split(words: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the letters of options with their values, which may be empty, and what follows, from -c or -m on."""
    rest = [*words]
    found: list[tuple[str, str]] = []
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        for place, letter in enumerate(word[1:], 2):
            if letter not in _WITH_VALUE:
                found.append((letter, ""))
                continue
            value = [word[place:]] if word[place:] else rest[:1]
            rest = rest if word[place:] else rest[1:]
            if letter in "cm":
                return found, [f"-{letter}", *value, *rest]
            found.append((letter, "".join(value)))
            break
    return found, rest


def note() -> None:
    """Note what `facts` and a copy need of this interpreter, before it imports what the user wants."""
    from libcriu_py.program import interactive  # noqa: F401 - a copy cannot always import it

    for name in preload.startup_reads(path for path in startup_files() if path.endswith(".pth")):
        reads.add(name)
    global _filters
    warnings: Any = sys.modules.get("warnings")
    _filters = () if warnings is None else (*warnings.filters,)


def facts(options: str) -> str:
    """
    Return what the launcher compares, in lines: options, the class of the locale, and paths at which nothing is.

    Args:
        options: The options of this interpreter that are fixed, in lines.
    """
    global _in_force
    _in_force = tuple(filter(None, options.split("\n")))
    site: Any = sys.modules.get("site")
    user = getattr(site, "USER_SITE", None) if getattr(site, "ENABLE_USER_SITE", None) else None
    paths = dict.fromkeys(path for path in (*sys.path, user) if path and os.path.isabs(path) and "\n" not in path)
    return "\n".join([*_in_force, "=" + _locale(), *(path for path in paths if not os.path.exists(path))])


def _locale() -> str:
    """Return what kind of locale the environment names, as far as Python's encodings depend on it."""
    env = os.environ
    name = env.get("LC_ALL") or env.get("LC_CTYPE") or env.get("LANG") or "C"
    is_usual = name in {"C", "POSIX"} or name.upper().endswith(_UTF8)
    return "UTF-8" if is_usual else name


def startup_files() -> list[str]:
    """Return the files that an interpreter reads at its start beside modules."""
    site: Any = sys.modules.get("site")
    found = [os.path.join(sys.prefix, "pyvenv.cfg")]
    places = [*site.getsitepackages(), *filter(None, [site.USER_SITE])] if site is not None else []
    for place in filter(os.path.isdir, places):
        found += [os.path.join(place, name) for name in sorted(os.listdir(place)) if name.endswith(".pth")]
    return [path for path in found if os.path.isfile(path)]


def follow(arguments: Sequence[str]) -> tuple[Program, list[str]]:
    """
    Follow the options of a command line in this interpreter.

    Args:
        arguments: What follows ``python``.

    Returns:
        The program, and its arguments.

    Raises:
        ValueError: An option has no value, or only a new interpreter can follow it.
    """
    options, rest = _split(arguments)
    program = parse_program(rest)
    if sorted(_fixed(options)) != sorted(_in_force) or ("W", "") in options or ("X", "") in options:
        message = "these are not the options that this interpreter was started with"
        raise ValueError(message)
    for letter, value in options:
        if letter == "B":
            sys.dont_write_bytecode = True
            set_flag("dont_write_bytecode", 1)
        elif letter == "q":
            set_flag("quiet", 1)
        elif letter == "u":
            stdio.unbuffer()
        elif letter == "X":
            _extra(value)
    _warn([value for letter, value in options if letter == "W"])
    return program


def _extra(option: str) -> None:
    """Follow -X."""
    name, _, value = option.partition("=")
    if name == "faulthandler":
        import faulthandler

        faulthandler.enable()
    elif name == "tracemalloc":
        import tracemalloc

        tracemalloc.start(int(value or 1))
    elif name == "pycache_prefix":
        sys.pycache_prefix = value or None
    sys._xoptions[name] = value or True  # noqa: SLF001 - there is no other name of it


def _warn(options: list[str]) -> None:
    """Put the filters of -W where they would be: behind those that preloaded modules have added."""
    if not options:
        return
    import warnings

    module: Any = warnings
    filters: Any = warnings.filters
    first = next((at for at, one in enumerate(filters) if any(one is other for other in _filters)), len(filters))
    added, filters[:] = filters[:first], filters[first:]
    sys.warnoptions += options
    module._processoptions(options)  # noqa: SLF001
    filters[:0] = [one for one in added if one not in filters]
    getattr(module, "_filters_mutated", lambda: None)()
