"""Manifests of any form: each is read, or refused by one class of exceptions; nothing in them moves the cursor."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from libcriu_py import Snapshot, SnapshotError
from libcriu_py.cli import main
from libcriu_py.errors import in_words
from libcriu_py.snapshot import launcher
from tests.snapshots import MANIFEST_OF_HERE, launch_of_here, write_snapshot

if TYPE_CHECKING:
    from pathlib import Path

ODD: tuple[Any, ...] = (None, True, 0, -1, 1e999, "", "x", [], [None], {}, {"x": None}, {"version": None}, [[]])
ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b1A"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Return a snapshot without images."""
    return write_snapshot(tmp_path / "snap", launch_of_here())


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "\xff", "{", '{"created": 1e999}', "null", "1", '""', "\ufeff{}"]
)
def test_text_that_is_no_manifest(snapshot: Path, text: str) -> None:
    """However deep, however encoded."""
    (snapshot / "manifest.json").write_bytes(text.encode("latin-1", "replace"))
    with pytest.raises(SnapshotError, match=r"manifest\.json (is|lacks)"):
        Snapshot.open(snapshot)


@pytest.mark.parametrize("name", ["launch", "manifest.json"])
def test_file_that_has_grown(snapshot: Path, name: str) -> None:
    """It is not read to its end, which takes all memory."""
    os.truncate(snapshot / name, 1 << 40)
    with pytest.raises(SnapshotError, match=rf"{name} cannot be read \(.* has 1099511627776 bytes\)"):
        Snapshot.open(snapshot)


@pytest.mark.parametrize(
    "name", ["criu_version", "machine", "python", "created", "argv", "cwd", "details", "memory", "extra"]
)
def test_values_of_any_type(snapshot: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """What is accepted is shown, or its images are what is missing."""
    for value in ODD:
        (snapshot / "manifest.json").write_text(json.dumps({**MANIFEST_OF_HERE, name: value}))
        assert main(["inspect", str(snapshot)]) == 1
        assert capsys.readouterr().err.startswith("libcriu-py: ")
        try:
            opened = Snapshot.open(snapshot)
        except SnapshotError as error:
            assert "is damaged (what it says of" in str(error)  # noqa: PT017 - some are accepted
        else:
            assert opened.check() is not None


@pytest.mark.parametrize("name", ["owners", "census", "working_set", "kind", "why"])
def test_values_of_any_type_for_memory(snapshot: Path, name: str) -> None:
    """So it is further inside."""
    for value in (None, 1, [1], {"x": "y"}, {"1": [1, "x"]}):
        (snapshot / "manifest.json").write_text(json.dumps({**MANIFEST_OF_HERE, "memory": {name: value}}))
        with pytest.raises(SnapshotError, match="what it says of memory cannot be"):
            Snapshot.open(snapshot)


def test_nothing_that_is_printed_moves_the_cursor(tmp_path: Path) -> None:
    """What a record names is told without its control characters, by the launcher and in errors."""
    snapshot = write_snapshot(tmp_path / "snap", launch_of_here(arch=f"vax{ESCAPE}"))
    done = subprocess.run(
        [launcher.path(), "--no-fallback", snapshot], check=False, capture_output=True, text=True, timeout=60
    )
    (mismatch,) = (found for found in Snapshot.open(snapshot).check() if found.fatal)
    for text in (done.stderr.rstrip("\n"), in_words(SnapshotError(mismatch.text))):
        assert "vax" in text
        assert text.isprintable()


def test_too_little_of_something_is_named() -> None:
    """A limit is told with its value and how to raise it, and a broken pipe with what broke it."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    text = in_words(OSError(errno.EMFILE, "Too many open files"))
    assert text == f"Too many open files (the limit is {limit}; ulimit -n)"
    assert in_words(BrokenPipeError(errno.EPIPE, "Broken pipe")) == "Broken pipe: whoever was to read this has ended"


def test_processor_that_cannot_be_read_lacks_nothing(snapshot: Path) -> None:
    """Without descriptors the launcher says that, and not that the processor is another one."""
    command = 'ulimit -n 4; exec "$0" --no-fallback "$1"'
    done = subprocess.run(
        ["sh", "-c", command, launcher.path(), snapshot], check=False, capture_output=True, text=True, timeout=60
    )
    assert "Too many open files" in done.stderr
    assert "lacks" not in done.stderr
