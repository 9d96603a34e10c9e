"""The public names of the package."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

import libcriu_py


def test_every_public_name_is_there() -> None:
    """Each name of __all__ can be imported, and is not a module of the same name."""
    assert sorted(libcriu_py._HOME) == sorted(libcriu_py.__all__)
    for name in libcriu_py.__all__:
        assert not isinstance(getattr(libcriu_py, name), ModuleType)
    assert set(libcriu_py.__all__) <= set(dir(libcriu_py))


PROMISED = {
    "binary": ("find_criu",),
    "clock": ("monotonic",),
    "criu": ("Criu",),
    "errors": ("CriuError",),
    "exit": ("exit_fast",),
    "hooks": ("Resource", "after_restore", "before_checkpoint", "register", "unregister"),
    "images": ("descriptors", "dump_stats", "files", "inventory", "memory", "process_tree", "restore_stats"),
    "options": ("DumpOptions", "InheritFd", "NetworkLock", "RestoreOptions"),
    "privilege": ("Privilege", "decide"),
    "snapshot": ("Mismatch", "Snapshot"),
    "_libcriu": ("ffi", "lib"),
}


@pytest.mark.parametrize("module", PROMISED)
def test_modules_that_users_import_stay(module: str) -> None:
    """What is imported from a module by name is there, wherever it is written."""
    found = importlib.import_module(f"libcriu_py.{module}")
    assert [name for name in PROMISED[module] if not hasattr(found, name)] == []


def test_unknown_name() -> None:
    """Other names are an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        libcriu_py.nothing  # noqa: B018


def test_import_of_the_package_loads_nothing() -> None:
    """What is not used is not loaded, the C extension above all."""
    code = "import sys, libcriu_py; print([name for name in sys.modules if name.startswith('libcriu_py')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['libcriu_py']\n"


@pytest.mark.usefixtures("unmeasured")
def test_restore_path_loads_nothing_heavy() -> None:
    """Whoever restores does not pay for what is not needed; of the standard library it takes subprocess."""
    heavy = (
        "argparse",
        "asyncio",
        "concurrent.futures",
        "ctypes",
        "dataclasses",
        "inspect",
        "rich",
        "shutil",
        "socket",
        "tempfile",
    )
    code = (
        "import sys, libcriu_py.dump.spawn, libcriu_py.copies.restore\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.usefixtures("unmeasured")
def test_a_checkpoint_loads_no_library_for_the_original_alone() -> None:
    """What is loaded before the dump is mapped by each copy."""
    modules = (
        *(
            "criu.client",
            "criu.options",
            "dump.arrival",
            "dump.checkpoint",
            "dump.criu_engine",
            "dump.native_engine",
            "dump.prepare",
            "dump.stdio",
        ),
        *("hooks.lifecycle", "linux.processes", "snapshot.request", "snapshot.staging"),
    )
    heavy = ("shutil", "zlib", "bz2", "lzma", "socket", "selectors", "subprocess", "hashlib", "argparse")
    imports = "".join(f"import libcriu_py.{name}\n" for name in modules)
    unwanted = (*heavy, "libcriu_py.criu.hints", "libcriu_py.images.readers")
    code = (
        f"import sys\n{imports}from libcriu_py.dump import criu_engine, engine, native_engine\n"
        "engine.load_for_copies(f'{criu_engine.OURS} {native_engine.OURS}')\n"
        f"print([name for name in {unwanted} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
