"""Names of commands, and the Python programs behind them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from libcriu_py.errors import SnapshotError
from libcriu_py.program.command import find_command, script_interpreter
from libcriu_py.program.main import Program

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, text: str, mode: int = 0o755) -> Path:
    """Write a script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("first_line", "interpreter"),
    [
        ("#!/usr/bin/python3", "/usr/bin/python3"),
        ("#! /opt/py/bin/python3.12 -I", "/opt/py/bin/python3.12"),
        ("#!/usr/bin/env python3", "python3"),
        ("#!/usr/bin/env -S python3 -u", "python3"),
        ("#!/bin/sh\n'''exec' /very/long/bin/python \"$0\" \"$@\"\n' '''", "/very/long/bin/python"),
        ("#!/bin/sh\n'''exec' \"/with space/bin/python\" \"$0\" \"$@\"\n' '''", "/with space/bin/python"),
        ("#!/bin/sh\necho", None),
        ("#!", None),
        ("", None),
        ("\x7fELF", None),
    ],
)
def test_interpreter_is_read_from_the_first_line(tmp_path: Path, first_line: str, interpreter: str | None) -> None:
    """Every way in which installers name the interpreter is understood, and other programs are told apart."""
    assert script_interpreter(str(write(tmp_path / "x", first_line + "\n"))) == interpreter


def test_command_on_path_is_found(tmp_path: Path) -> None:
    """The script is run by its path, wherever on PATH it is; files that are not executable do not count."""
    write(tmp_path / "a" / "tool-x", f"#!{sys.executable}\n", mode=0o644)
    script = write(tmp_path / "b" / "tool-x", f"#!{sys.executable}\n")
    assert find_command("tool-x", path=f"{tmp_path}/a:{tmp_path}/b") == Program("script", str(script))


def test_command_next_to_the_interpreter_comes_first(tmp_path: Path) -> None:
    """The commands of the interpreter's own environment win over PATH."""
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    script = write(tmp_path / "env" / "bin" / "tool-x", f"#!{python}\n")
    other = write(tmp_path / "other" / "tool-x", f"#!{python}\n")
    assert find_command("tool-x", python=str(python), path=str(other.parent)) == Program("script", str(script))


def test_program_in_another_language_is_passed_over(tmp_path: Path) -> None:
    """Like the shims of version managers; the next one on PATH is taken."""
    write(tmp_path / "shims" / "tool-x", "#!/bin/bash\n")
    script = write(tmp_path / "b" / "tool-x", "#!/usr/bin/env python3\n")
    assert find_command("tool-x", path=f"{tmp_path}/shims:{tmp_path}/b") == Program("script", str(script))
    with pytest.raises(SnapshotError, match="not a Python program"):
        find_command("tool-x", path=f"{tmp_path}/shims")


def test_command_of_another_python_is_refused(tmp_path: Path) -> None:
    """It could import neither this package nor its own modules; the message says what to do."""
    write(tmp_path / "tool-x", "#!/opt/elsewhere/bin/python3\n")
    with pytest.raises(SnapshotError, match=r"another Python: /opt/elsewhere/bin/python3; .* --python"):
        find_command("tool-x", path=str(tmp_path))


def test_entry_point_without_a_script_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A console script that was never written is made up from the metadata and sees its own name in sys.argv[0]."""
    info = tmp_path / "tool_x-1.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: tool-x\nVersion: 1\n")
    write(info / "entry_points.txt", "[console_scripts]\ntool-x = tool_x_mod:Tool.main [extra]\n")
    write(
        tmp_path / "tool_x_mod.py",
        "import sys\nclass Tool:\n    @staticmethod\n    def main():\n        print(sys.argv)\n        return 4\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    program = find_command("tool-x", path="")
    assert program.kind == "command"
    done = subprocess.run(
        [sys.executable, *program.arguments(), "a"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (4, "['tool-x', 'a']\n")


def test_unknown_command_is_refused() -> None:
    """The message says what can be given instead."""
    with pytest.raises(SnapshotError, match="no command of this name on PATH; give"):
        find_command("nosuch-command-anywhere", path="")
