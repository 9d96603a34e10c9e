"""What is read from the source of a main module."""

import sys
import zipapp
from pathlib import Path

import pytest

from libcriu_py.program.imports import Import, Main, checkpoints_itself, imports, late_imports, read_main
from libcriu_py.program.main import Program


def modules(source: str, package: str = "") -> list[str]:
    """Return the names of the imported modules."""
    return [wanted.module for wanted in imports(Main(source, package, "main.py"))]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a, b.c as d\nfrom e.f import g", ["a", "b.c", "e.f"]),
        ("from __future__ import annotations\nimport a", ["a"]),
        ("def f():\n    import a\nclass C:\n    import b", []),
        ("with open('x') as f:\n    import a", ["a"]),
        (
            "try:\n    import json\nexcept ImportError:\n    import b\nelse:\n    import c\nfinally:\n    import d",
            ["json", "c", "d"],
        ),
        (
            "try:\n    import nosuch_x\n    import json\nexcept ImportError:\n    import b\nelse:\n    import c",
            ["json", "b"],
        ),
        ("try:\n    import nosuch_x\nfinally:\n    pass", ["nosuch_x"]),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import b", ["b"]),
        ("import typing\nif typing.TYPE_CHECKING:\n    import a", ["typing"]),
        ("if not TYPE_CHECKING:\n    import a", ["a"]),
        ("if __name__ == '__main__':\n    import a\nelse:\n    import b", ["b"]),
        ("if '__main__' == __name__:\n    import a", []),
        ("if sys.version_info >= (3, 8):\n    import a\nelse:\n    import b", ["a"]),
        ("if sys.version_info[0] == 2:\n    import a\nelif sys.version_info.major == 3:\n    import b", ["b"]),
        ("if sys.platform.startswith('linux') and os.name != 'nt':\n    import a", ["a"]),
        ("if sys.platform == 'win32':\n    import a", []),
        ("if os.environ.get('X'):\n    import a\nelse:\n    import b", []),
        ("if exit():\n    import a", []),
        ("if True:\n    import a", ["a"]),
    ],
)
def test_top_level_imports(source: str, expected: list[str]) -> None:
    """Exactly the imports are listed that every run of the module makes, or tries."""
    assert modules(source) == expected


if sys.version_info >= (3, 11):  # whose syntax it is

    def test_except_star() -> None:
        """try/except* is read like try/except."""
        assert modules("try:\n    import json\nexcept* ValueError:\n    import b") == ["json"]


def test_late_imports() -> None:
    """Those of functions and of what only the main module does, once each and if they are there; not those of types."""
    source = (
        "import json, typing\nif typing.TYPE_CHECKING:\n    import wave\n"
        "def work():\n    import colorsys, no_such_module_x\n    def inner():\n        from xml.dom import minidom\n"
        "class Thing:\n    async def work(self):\n        import colorsys\n"
        "if __name__ == '__main__':\n    import sched\n"
    )
    assert late_imports(Main(source, "", "x.py")) == ["colorsys", "xml.dom", "sched"]


def test_relative_imports_are_made_absolute() -> None:
    """A module of a package is told which package it is in."""
    assert imports(Main("from . import a, b\nfrom ..c import d\nfrom .e import *", "p.q", "")) == [
        Import("p.q", ("a", "b")),
        Import("p.c", ("d",)),
        Import("p.q.e"),
    ]


def test_relative_imports_that_lead_nowhere_are_left_to_the_program() -> None:
    """The program fails on them itself, with Python's own message."""
    assert modules("from . import a") == []
    assert modules("from ... import a", "p") == []


@pytest.mark.parametrize(
    "source",
    [
        "from libcriu_py import checkpoint",
        "def main():\n    from libcriu_py import checkpoint_here as now",
        "import libcriu_py\nlibcriu_py.checkpoint('d')",
        "import libcriu_py as lcp\nwith lcp.checkpoint('d'): pass",
        "from libcriu_py.dump.checkpoint import checkpoint",
        "import libcriu_py.dump.checkpoint",
    ],
)
def test_program_that_checkpoints_itself_is_recognised(source: str) -> None:
    """Asking for a checkpoint anywhere in the main module counts."""
    assert checkpoints_itself(Main(source, "", ""))


@pytest.mark.parametrize(
    "source",
    ["import checkpoint", "from libcriu_py import after_restore", "import libcriu_py", "model.checkpoint('d')", ""],
)
def test_other_programs_do_not_checkpoint_themselves(source: str) -> None:
    """Hooks, or things of the same name, do not count."""
    assert not checkpoints_itself(Main(source, "", ""))


def test_source_is_found_for_every_kind_of_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts in any encoding, directories, zip files with a first line, modules, packages and commands have one."""
    monkeypatch.syspath_prepend(str(tmp_path))
    script = tmp_path / "script.py"
    script.write_bytes(b"# coding: latin-1\nname = '\xe4'\n")
    assert "ä" in read_main(Program("script", str(script))).source
    package = tmp_path / "read_me_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("import a")
    (package / "mod.py").write_text("import b")
    zipapp.create_archive(package, tmp_path / "app", interpreter="/usr/bin/env python3")
    assert read_main(Program("script", str(package))).source == "import a"
    assert read_main(Program("script", str(tmp_path / "app"))).source == "import a"
    assert read_main(Program("module", "read_me_pkg"))[:2] == ("import a", "read_me_pkg")
    assert read_main(Program("module", "read_me_pkg.mod"))[:2] == ("import b", "read_me_pkg")
    assert read_main(Program("command", "import c")).source == "import c"
    assert read_main(Program("script", "-")).source == ""
    with pytest.raises(ModuleNotFoundError):
        read_main(Program("module", "read_me_pkg.none"))
    with pytest.raises(FileNotFoundError):
        read_main(Program("script", str(tmp_path / "none.py")))
