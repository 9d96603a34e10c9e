"""
What a start costs, in numbers that are the same however busy the machine is, stays below the limits in counts.json.

The numbers of one build are the same to half a percent, and the limits are 10 to 15 percent above them: room for other
versions of CRIU and the C library. A criu with shared libraries needs more than one without, and has limits of its own
(those of CRIU 4.2.1 with all that it can do, the dearest one); so has the memory of younger Pythons. They catch work
that should not be there: memory that is read or touched though it is mapped, a launcher that looks for files,
parses twice, or starts what it does not need.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from libcriu_py.criu.find import find_criu
from libcriu_py.diagnosis.facts import is_static
from libcriu_py.snapshot import launcher as native_launcher
from tests.system.conftest import MODES
from tests.system.counts import Family, count_family, count_instructions, count_system_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.conftest import Mode

LIMITS: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).parents[1].joinpath("counts.json").read_text(encoding="utf-8")
)
LIMITS_FILE = "tests/system/counts.json"
PROGRAM = 'print("ready", flush=True)\n'
LARGE = f"import large_memory\n{PROGRAM}"
MODULE = 'DATA = bytearray(b"x" * (64 << 20))\n'
KINDS = {"copied": (PROGRAM, "copy"), "mapped": (PROGRAM, "map"), "64 MB mapped": (LARGE, "map")}
OWN_MODES = ("root", "rootless-as-root") if os.geteuid() == 0 else MODES
"""Those in which this account starts the launcher itself, without a program that changes accounts before it."""
PYTHON = "3.11" if sys.version_info < (3, 12) else "3.13"
"""Which limits an interpreter's memory has: those measured with this version."""
RUNS = 2
"""The first fills caches; the least counts."""


class Start:
    """Starts of copies in a mode."""

    def __init__(self, mode: Mode, directory: Path) -> None:
        """
        Make the snapshots.

        Args:
            mode: The mode.
            directory: Where the snapshots go.
        """
        self.mode = mode
        self.directory = directory
        launcher = native_launcher.find()
        assert launcher is not None, "libcriu-py-run was not built"
        self.launcher = str(launcher)
        # What the launcher hands on is counted too, and so it has to be the same everywhere.
        kept = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME"} or k.startswith("LIBCRIU_PY_")}
        self.env = {**kept, **mode.env}
        (directory / "large_memory.py").write_text(MODULE, encoding="ascii")
        for name, (code, memory) in KINDS.items():
            script = directory / f"{name}.py"
            script.write_text(code, encoding="ascii")
            argv = [mode.account.python, "-m", "libcriu_py", "snapshot", "-o", directory / name, script]
            done = mode.run(argv, env={"LIBCRIU_PY_MEMORY": memory})
            assert done.returncode == 0, done.stderr

    def argv(self, name: str) -> list[str]:
        """
        Return the command that starts a copy.

        Args:
            name: One of KINDS.
        """
        return [self.launcher, "--no-fallback", str(self.directory / name)]

    def least(self, name: str) -> Family:
        """
        Return the least that a copy and its launcher took.

        Args:
            name: One of KINDS.
        """
        counted = [count_family(self.argv(name), self.env) for _ in range(RUNS)]
        return Family(*map(min, zip(*counted, strict=True)))

    def pages(self, name: str) -> int:
        """
        Return the bytes of memory that are copied from the images of a snapshot.

        Args:
            name: One of KINDS.
        """
        return sum(path.stat().st_size for path in (self.directory / name / "images").glob("pages-*.img"))


def check(what: str, measured: int, *keys: str) -> None:
    """
    Fail with number and limit if there is more than there may be.

    Args:
        what: One of LIMITS.
        measured: The number.
        keys: Which of its limits.
    """
    limit: Any = LIMITS[what]
    for key in keys:
        limit = limit[key]
    name = ", ".join((what.replace("_", " "), *keys))
    assert measured <= limit, f"{name}: {measured}; the limit in {LIMITS_FILE} is {limit}"


@pytest.fixture(scope="module", params=OWN_MODES)
def start(request: pytest.FixtureRequest, mode_named: Callable[[str], Mode]) -> Iterator[Start]:
    """Yield snapshots in each mode that this account uses by itself."""
    mode = mode_named(request.param)
    directory = mode.account.directory()
    yield Start(mode, directory)
    shutil.rmtree(directory)


@pytest.mark.parametrize("kind", KINDS)
def test_page_faults_and_bytes_read(start: Start, kind: str) -> None:
    """
    Launcher, criu and copy together touch and read no more than they need; 64 MB that are mapped add nothing.

    What is read of the program's memory is counted apart from all else, which does not depend on the program.
    """
    counted = start.least(kind)
    criu = "static" if is_static(find_criu()) else "shared"
    pages = start.pages(kind)
    check("page_faults", counted.page_faults, criu, kind)
    check("bytes_of_memory", pages, PYTHON, kind)
    check("bytes_read", counted.bytes_read - pages, criu)


def test_system_calls_of_the_launcher(start: Start, tmp_path: Path) -> None:
    """The launcher alone makes few of them."""
    check("system_calls", count_system_calls(start.argv("mapped"), start.env, tmp_path), start.mode.value)


def test_instructions_of_the_launcher(start: Start, tmp_path: Path) -> None:
    """The launcher alone has little to do in user space."""
    check("instructions", count_instructions(start.argv("mapped"), start.env, tmp_path), start.mode.value)
