"""
The public names of the package.
"""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import libcriu_py


def test_every_public_name_is_there() -> None:
    """
    Each name of __all__ can be imported, and is not a module of the same name.
    """
    assert sorted(libcriu_py._HOME) == sorted(libcriu_py.__all__)
    for name in libcriu_py.__all__:
        assert not isinstance(getattr(libcriu_py, name), ModuleType)
    assert set(libcriu_py.__all__) <= set(dir(libcriu_py))


def test_unknown_name() -> None:
    """
    Other names are an AttributeError, as of any module.
    """
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        libcriu_py.nothing  # noqa: B018


def test_import_of_the_package_loads_nothing() -> None:
    """
    What is not used is not loaded, the C extension above all.
    """
    code = "import sys, libcriu_py; print([name for name in sys.modules if name.startswith('libcriu_py')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['libcriu_py']\n"


def test_restore_path_loads_nothing_heavy() -> None:
    """
    A launcher does not pay for what it does not need.
    """
    heavy = (
        "argparse",
        "asyncio",
        "concurrent.futures",
        "ctypes",
        "dataclasses",
        "inspect",
        "libcriu_py.settings",
        "rich",
        "shutil",
        "socket",
        "subprocess",
        "tempfile",
    )
    code = (
        f"import sys, libcriu_py.launcher, libcriu_py.restore; print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_checkpoint_loads_no_library_for_the_original_alone() -> None:
    """
    What is loaded before the dump is mapped by each copy.
    """
    modules = "prepare, checkpoint, lifecycle, engines, draft, arrival, request, stdio, criu, options, tree"
    heavy = ("shutil", "zlib", "bz2", "lzma", "ctypes", "socket", "subprocess", "hashlib", "argparse")
    code = f"import sys\nfrom libcriu_py import {modules}\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
