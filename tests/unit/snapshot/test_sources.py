"""Which source files count, in interpreters that have imported modules of all kinds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

TEMPORARY = tempfile.gettempdir()  # system tests in the same process set another one
PRINT = (
    "import json\nfrom libcriu_py.snapshot import sources\n"
    "print(json.dumps([entry._asdict() for entry in sources.find(sources.loaded(), main={})]))\n"
)


def write(path: Path, text: str = "") -> Path:
    """Write a file, and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def sources(directory: Path, code: str, *, main: bool = False, path: str | None = None) -> list[dict[str, Any]]:
    """
    Return the entries for a program in a directory, but those of what this environment imports at any start.

    Args:
        directory: Where it is, and started.
        code: What it does first.
        main: Whether its own source is one of them.
        path: PYTHONPATH.
    """
    script = write(directory / "program.py", code + "\n" + PRINT.format(main))
    env = {**os.environ, "PYTHONPATH": path} if path is not None else None
    done = subprocess.run([sys.executable, script], cwd=directory, env=env, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    of_start = sysconfig.get_path("purelib")  # modules of .pth files
    return [entry for entry in json.loads(done.stdout) if not entry["path"].startswith(of_start)]


def names(directory: Path, code: str, **settings: Any) -> list[str]:
    """Return the paths in the directory, relative to it."""
    paths = [Path(entry["path"]) for entry in sources(directory, code, **settings)]
    return [str(path.relative_to(directory)) for path in paths]


def test_an_entry_has_size_and_time(tmp_path: Path) -> None:
    """They are those of the file at the dump."""
    status = write(tmp_path / "own.py", "X = 1\n").stat()
    expected = {"path": str(tmp_path / "own.py"), "size": 6, "mtime_ns": status.st_mtime_ns, "mode": 0}
    assert sources(tmp_path, "import own, json, asyncio") == [expected]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", []),
        ("import json, asyncio, libcriu_py.dump.checkpoint", []),
        ("import own", ["own.py"]),
        ("import package.inner", ["package/__init__.py", "package/inner.py"]),
        ("import namespace.module", ["namespace/module.py"]),
        ("import sys; sys.path.insert(0, 'more'); import other", ["more/other.py"]),
        ("import sys; sys.path.insert(0, 'archive.zip'); import zipped, zipped_too", ["archive.zip"]),
        (
            "import sys; sys.path.insert(0, 'venv/lib/site-packages'); import installed",
            ["venv/lib/site-packages/installed.py"],
        ),
        ("import sys; sys.path.insert(0, 'dist-packages'); import distributed", ["dist-packages/distributed.py"]),
        ("import sys; sys.path.insert(0, 'link'); import other", ["link/other.py"]),
        (
            "import sys; sys.path.insert(0, 'venv/lib/site-packages'); import editable",
            ["venv/lib/site-packages/editable/__init__.py"],
        ),
        ("import own, os; os.unlink('own.py')", []),
        ("import own; own.__file__ = None", []),
        ("import own; own.__file__ = 3", []),
        ("import own; own.__file__ = '.'", []),
        (r"import own; own.__file__ = '/a\0b/own.py'", []),
        (r"import own; own.__file__ = '/a\ud800/own.py'", []),
        ("import own; own.__spec__ = None", ["own.py"]),
        ("import own; del own.__spec__", ["own.py"]),
        ("import sys; sys.modules['a'] = None; sys.modules['b'] = object(); sys.modules['c'] = int", []),
    ],
)
def test_which_files_there_are(tmp_path: Path, code: str, expected: list[str]) -> None:
    """Modules of the user's own and installed ones, wherever they were found, and nothing of the standard library."""
    for name in ("own", "package/__init__", "package/inner", "namespace/module", "more/other"):
        write(tmp_path / f"{name}.py")
    write(tmp_path / "venv/lib/site-packages/installed.py")
    write(tmp_path / "dist-packages/distributed.py")
    write(tmp_path / "worked-on/editable/__init__.py")
    (tmp_path / "venv/lib/site-packages/editable").symlink_to("../../../worked-on/editable")
    (tmp_path / "link").symlink_to("more")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("zipped.py", "")
        archive.writestr("zipped_too.py", "")
    assert names(tmp_path, code) == expected


def test_the_main_module_is_one_if_asked_for(tmp_path: Path) -> None:
    """It is not where copies read it anew."""
    write(tmp_path / "own.py")
    assert names(tmp_path, "import own", main=True) == ["own.py", "program.py"]


def test_nothing_that_stands_in_for_a_module_is_woken(tmp_path: Path) -> None:
    """Attributes of lazy modules are not asked for."""
    write(tmp_path / "lazy.py", "print('woken')")
    write(
        tmp_path / "strange.py",
        "import sys\nclass Strange:\n    def __getattribute__(self, name):\n        print('asked')\n"
        "        raise SystemExit(1)\nsys.modules[__name__] = Strange()\n",
    )
    code = (
        "import importlib.util, sys, strange\nspec = importlib.util.find_spec('lazy')\n"
        "loader = spec.loader = importlib.util.LazyLoader(spec.loader)\n"
        "module = sys.modules['lazy'] = importlib.util.module_from_spec(spec)\nloader.exec_module(module)\n"
    )
    assert names(tmp_path, code) == ["lazy.py"]


def test_what_programs_generate_is_theirs(tmp_path: Path) -> None:
    """A module that was written into a temporary directory in order to load it may be gone when copies start."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        generated = write(Path(directory) / "generated.py")
        code = (
            "import importlib.util, sys\n"
            f"spec = importlib.util.spec_from_file_location('generated', {str(generated)!r})\n"
            "sys.modules['generated'] = importlib.util.module_from_spec(spec)\n"
        )
        assert sources(tmp_path, code) == []
        assert [entry["path"] for entry in sources(tmp_path, code, path=directory)] == [str(generated)]


def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    """Only what has a relative path is not found."""
    write(tmp_path / "own.py")
    code = "import own, os; os.mkdir('x'); os.chdir('x'); os.rmdir('../x'); own.__file__ = 'own.py'"
    assert names(tmp_path, f"{code}; __file__ = 'program.py'; import sys; sys.path.append('')", main=True) == []


@pytest.mark.parametrize(("where", "expected"), [(".", ["own.py"]), ("/", []), (TEMPORARY, [])])
def test_module_of_the_working_directory(where: str, expected: list[str], tmp_path: Path) -> None:
    """A module from there counts, also below /tmp, and where sys.path has the directory no more, as after Celery."""
    assert str(tmp_path).startswith(TEMPORARY)
    write(tmp_path / "own.py", "X = 1\n")
    code = f"import os, sys, own\ndel sys.path[0]\nos.chdir({where!r})"
    assert names(tmp_path, code) == expected
