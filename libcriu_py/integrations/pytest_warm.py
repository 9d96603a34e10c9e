"""
The plugin of pytest: `pytest --warm` becomes a copy of an interpreter that has imported what pytest is going to import.

The launcher starts that, or a new interpreter where none fits, and tells the program its place in the cache. There this
plugin notes what was imported from outside the project, for the next snapshot, and finds the interpreter for workers of
pytest-xdist.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.assertion.rewrite import AssertionRewritingHook

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec

_PLACE = "LIBCRIU_PY_AUTO_LEARN"
_OF_WORKER = "libcriu_py_entry"
_NAMES = {"pytest", "py.test"}

_place = os.environ.pop(_PLACE, None)
"""The directory in the cache of what runs here; empty if there is none; None if no launcher has started it."""
_is_copy = "libcriu_py.program.noting" in sys.modules
_variables = os.environ.copy()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add --warm, and follow it at once: each further import would be for nothing."""
    text = "start from a snapshot of an interpreter that has imported what is not of the project (libcriu-py)"
    parser.getgroup("warm", "warm starts").addoption("--warm", action="store_true", help=text)
    config: Any = pluginmanager.get_plugin("pytestconfig")
    if _place is None and config is not None:
        arguments = [*config.invocation_params.args]
        if "--warm" in [*arguments, *shlex.split(os.environ.get("PYTEST_ADDOPTS", "")), *config.getini("addopts")]:
            _become_warm(arguments)


def _become_warm(arguments: list[str]) -> None:
    """Start this command line anew by the launcher, where pytest is all that it names."""
    words = sys.orig_argv[1:]
    head = words[: len(words) - len(arguments)]
    if not head or words[len(head) :] != arguments or os.path.basename(head[-1]) not in _NAMES:
        return
    from libcriu_py.settings import variable
    from libcriu_py.snapshot import launcher

    program = launcher.find()
    if program is not None and variable("LIBCRIU_PY_AUTO") != "0":
        os.execve(program, [program, "--auto-python", sys.executable, *words], {**os.environ, _PLACE: ""})


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start anew without the snapshot, if it has modules whose import pytest-cov, which has begun, is to measure."""
    coverage: Any = sys.modules.get("coverage")
    measured = coverage.Coverage.current() if _is_copy and coverage is not None else None
    if measured is not None and _has_measured(measured.get_option):
        capture: Any = early_config.pluginmanager.get_plugin("capturemanager")
        if capture is not None:
            capture.stop_global_capturing()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**_variables, _PLACE: ""})


def _has_measured(option: Callable[[str], Any]) -> bool:
    """Return whether one of the packages, directories or patterns to be measured has a module of the snapshot."""
    from fnmatch import fnmatch

    sources = [*(option("run:source") or ()), *(option("run:source_pkgs") or ())]
    patterns = [word if word[:1] in "*?" else os.path.abspath(word) for word in option("run:include") or ()]
    prefixes = tuple(f"{source}." for source in sources)
    directories = tuple(os.path.join(os.path.abspath(source), "") for source in sources if os.path.isdir(source))
    for name, module in list(sys.modules.items()):
        file = getattr(getattr(module, "__spec__", None), "origin", None)
        if not isinstance(file, str) or not file.startswith(_places()):
            continue
        if f"{name}.".startswith(prefixes) or file.startswith(directories) or any(fnmatch(file, x) for x in patterns):
            return True
    return False


def pytest_configure(config: pytest.Config) -> None:
    """Take the place that the main process tells a worker of pytest-xdist."""
    global _place
    if hasattr(config, "workerinput"):
        _place = config.workerinput.get(_OF_WORKER)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """Have workers be copies of the same interpreter."""
    python = os.path.join(_place or "", "python")
    if _place and _is_copy and os.access(python, os.X_OK):
        for spec in specs:
            if spec.popen and not spec.python:
                spec.python = python


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist the place."""
    node.workerinput[_OF_WORKER] = _place


def pytest_unconfigure() -> None:
    """Note what the next snapshot is to have."""
    if not _place:
        return
    from libcriu_py.program import noting

    lines = noting.new_modules(_is_wanted) + "".join(f"={name}\n" for name in _changed_variables())
    with contextlib.suppress(OSError):
        noting.note(_place, _without_known(lines))


def _changed_variables() -> list[str]:
    """Return the variables that are not as they were when the program started; pytest has set its own before."""
    now = os.environ.copy()
    return [
        name
        for name in {**_variables, **now}
        if (name.startswith("PYTEST_") or _variables.get(name) != now.get(name)) and "\n" not in name
    ]


def _is_wanted(file: str, spec: ModuleSpec) -> bool:
    """Return whether a module is of the interpreter or an installed package, and will be the same in each project."""
    if spec.name.startswith("libcriu_py") or (file and not file.startswith(_places())):
        return False
    if isinstance(spec.loader, AssertionRewritingHook):
        return spec.name.partition(".")[0] in _plugins()
    loader: object = spec.loader
    kind = loader if isinstance(loader, type) else type(loader)
    return kind.__module__.startswith(("_frozen_importlib", "zipimport"))  # another may change what it loads


@functools.cache
def _places() -> tuple[str, ...]:
    import site
    import sysconfig

    names = ("stdlib", "platstdlib", "purelib", "platlib")
    found = [*map(sysconfig.get_path, names), *site.getsitepackages(), site.getusersitepackages()]
    return tuple(os.path.join(place, "") for place in dict.fromkeys(found) if place)


@functools.cache
def _plugins() -> set[str]:
    from libcriu_py.integrations.pytest_plugins import names

    return names()


def _without_known(lines: str) -> str:
    """Leave out what former programs have noted, which has its reason where the snapshot has it not."""
    import json

    try:
        with open(os.path.join(_place or "", "state.json"), encoding="utf-8") as file:
            modules, variables = json.load(file)["learned"]
    except (OSError, ValueError, KeyError):
        return lines
    known = {*modules, *(f"={name}" for name in variables)}
    return "".join(
        line for line in lines.splitlines(keepends=True) if line.rstrip("\n").partition("\t")[0] not in known
    )
