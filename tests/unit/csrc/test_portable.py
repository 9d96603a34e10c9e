"""What stands for functions that an old glibc lacks does the same as they do."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import threading
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "libcriu_py/csrc/portable/old_libc.c"
ROOM = 256  # of a struct stat and more


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Compile the unit alone."""
    target = tmp_path_factory.mktemp("portable") / "old_libc.so"
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    subprocess.run(["cc", *flags, "-o", str(target), str(SOURCE)], check=True)
    return ctypes.CDLL(str(target), use_errno=True)


def test_files(library: ctypes.CDLL, tmp_path: Path) -> None:
    """Device and inode come first in a struct stat, and one that is not there is an error."""
    told = ctypes.create_string_buffer(ROOM)
    path = tmp_path / "file"
    path.write_text("text", encoding="ascii")
    expected = (path.stat().st_dev, path.stat().st_ino)
    assert library.stat(os.fsencode(path), told) == 0
    assert struct.unpack_from("QQ", told) == expected
    told = ctypes.create_string_buffer(ROOM)
    with path.open("rb") as file:
        assert library.fstat(file.fileno(), told) == 0
    assert struct.unpack_from("QQ", told) == expected
    assert library.stat(b"/nowhere/at/all", told) == -1


def test_threads_and_random_bytes(library: ctypes.CDLL) -> None:
    """The id is the kernel's, and bytes are not zero."""
    assert library.gettid() == threading.get_native_id()
    told = ctypes.create_string_buffer(16)
    assert library.getrandom(told, 16, 0) == 16
    assert told.raw != bytes(16)


def test_numbers(library: ctypes.CDLL) -> None:
    """As far as they are read; the newer functions' binary numbers are not known."""
    for name in ("strtol", "strtoll", "strtoul", "strtoull"):
        read = library[f"__isoc23_{name}"]
        read.restype = ctypes.c_ulonglong
        end = ctypes.c_char_p()
        assert read(b"123 and", ctypes.byref(end), 10) == 123
        assert end.value == b" and"
    number = ctypes.c_int()
    assert library["__isoc23_sscanf"](b"at 7", b"at %d", ctypes.byref(number)) == 1
    assert number.value == 7
