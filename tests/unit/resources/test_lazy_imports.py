"""Imports that are put off (Python 3.15) are made before a dump; `make test-wheels` tries it with that version."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING

from libcriu_py.resources import imports

if TYPE_CHECKING:
    import pytest


class Lazy:
    """Stands for the interpreter's own kind of object, which older ones lack."""

    def __init__(self, value: object) -> None:
        self.value = value


class Module(types.ModuleType):
    """A module that makes a lazy import when it is asked for the name, as the interpreter does."""

    def __getattribute__(self, name: str) -> object:
        value = super().__getattribute__(name)
        if not isinstance(value, Lazy):
            return value
        if isinstance(value.value, Exception):
            raise value.value
        setattr(self, name, value.value)
        if isinstance(value.value, types.ModuleType):
            sys.modules[name] = value.value
        return value.value


def test_lazy_imports_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of modules that come by it; one that fails is left, and changes nothing else."""
    monkeypatch.setattr(types, "LazyImportType", Lazy, raising=False)
    monkeypatch.setattr(sys, "lazy_modules", {"inner", "missing"}, raising=False)
    outer, inner = Module("outer"), Module("inner")
    vars(outer).update(inner=Lazy(inner), missing=Lazy(ImportError("no such module")))
    vars(inner)["value"] = Lazy(42)
    monkeypatch.setitem(sys.modules, "outer", outer)
    monkeypatch.setitem(sys.modules, "inner", types.ModuleType("inner"))  # so that it goes again
    del sys.modules["inner"]
    imports.import_lazy()
    assert vars(outer)["inner"] is inner
    assert vars(inner)["value"] == 42
    assert isinstance(vars(outer)["missing"], Lazy)


def test_without_lazy_imports_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before Python 3.15, and where none was made."""
    monkeypatch.setattr(sys, "lazy_modules", set(), raising=False)
    monkeypatch.setattr(types, "LazyImportType", Lazy, raising=False)
    module = Module("module")
    vars(module)["value"] = Lazy(42)
    monkeypatch.setitem(sys.modules, "module", module)
    imports.import_lazy()
    assert isinstance(vars(module)["value"], Lazy)
