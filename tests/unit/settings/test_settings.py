"""The table of settings: it has every argument, option and variable, with its true default."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from libcriu_py import checkpoint, checkpoint_here, restore, settings
from libcriu_py.cli import main, snapshot

ROOT = Path(__file__).resolve().parents[3]
NAME = re.compile(r"LIBCRIU_PY_[A-Z_]*[A-Z]\b")
GUARD = re.compile(r"_H$")


def named_in(*patterns: str) -> set[str]:
    """Return the variables that files of the package name; an include guard is none."""
    files = [path for pattern in patterns for path in (ROOT / "libcriu_py").rglob(pattern)]
    assert files
    names = {name for path in files if path.name != "settings.py" for name in NAME.findall(path.read_text())}
    return {name for name in names if not GUARD.search(name)}


def test_every_variable_stands_in_the_table() -> None:
    """The package and the launcher use those of the table and no others, and the table says which the launcher uses."""
    known = {setting.variable for setting in settings.TABLE.values() if setting.variable}
    by_the_table = {setting.variable for setting in settings.used_by("checkpoint")}
    assert named_in("*.py", "*.c", "*.h") | by_the_table == known
    assert named_in("*.c", "*.h") == {setting.variable for setting in settings.TABLE.values() if setting.launcher}


def test_every_variable_is_read_by_the_accessor() -> None:
    """No module asks the environment for one, and the accessor refuses what is not in the table."""
    read = r'(?:\.get|getenv)\(b?"LIBCRIU_PY_|"LIBCRIU_PY_\w+" (?:not )?in os|environb?\[b?"LIBCRIU_PY_\w+"\](?! =)'
    reading = re.compile(read)
    found = {path.name: reading.findall(path.read_text()) for path in (ROOT / "libcriu_py").rglob("*.py")}
    assert {name: hits for name, hits in found.items() if hits} == {}
    with pytest.raises(KeyError):
        settings.variable("LIBCRIU_PY_NONE")


def arguments(function: Any) -> dict[str, Any]:
    """Return the optional arguments of a function that are given by name, and the directory, with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    empty = inspect.Parameter.empty
    return {item.name: item.default for item in parameters if item.default is not empty and item.name != "argv"}


@pytest.mark.parametrize(("function", "use"), [(checkpoint, "checkpoint"), (restore, "restore")])
def test_arguments_have_their_true_defaults(function: Any, use: str) -> None:
    """The signatures that people see agree with the table."""
    assert arguments(function) == {setting.name: setting.default for setting in settings.used_by(use)}


def test_types_name_what_the_table_has() -> None:
    """Each setting has a type for those who pass it on."""
    tree = ast.parse((ROOT / "libcriu_py/settings.py").read_text())
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}

    def fields(name: str) -> set[str]:
        body = [node.target for node in classes[name].body if isinstance(node, ast.AnnAssign)]
        return {target.id for target in body if isinstance(target, ast.Name)}

    assert fields("CheckpointSettings") | {"dir"} == {item.name for item in settings.used_by("checkpoint")}
    assert fields("HereSettings") == {item.name for item in settings.used_by("here")}
    assert fields("RestoreSettings") | {"n"} == {item.name for item in settings.used_by("restore")}


def test_options_of_snapshot_come_from_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their names, help texts and defaults; one that goes before what the program says has none of its own."""
    monkeypatch.delenv("LIBCRIU_PY_STORE", raising=False)
    actions = {action.dest: action for action in snapshot.build_parser()._actions if action.option_strings}
    del actions["help"]
    known = {setting.name: setting for setting in settings.used_by("snapshot")}
    assert actions.keys() == known.keys()
    for name, action in actions.items():
        setting = known[name]
        assert action.option_strings == setting.options
        assert (action.help or "").startswith(setting.text)
        of_the_program = setting.kind != "flag" and "checkpoint" in setting.uses
        default = tuple(action.default) if isinstance(action.default, list) else action.default
        assert default == (None if of_the_program else setting.default)
        assert not setting.choices or setting.choices == action.choices


def test_help_is_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """What --help prints of the mode is the same for every subcommand, and has the text of the table."""
    for name in ("snapshot", "run", "pool", "preflight", "optimize"):
        assert main([name, "--help"]) == 0
        words = " ".join(capsys.readouterr().out.split())
        assert settings.TABLE["mode"].text in words


def test_store_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is the default of the option."""
    monkeypatch.setenv("LIBCRIU_PY_STORE", "/blocks")
    assert snapshot.build_parser().parse_args(["-o", "d"]).store == "/blocks"
    assert snapshot.build_parser().parse_args(["-o", "d", "--store", "other"]).store == "other"


def test_unknown_setting_is_refused() -> None:
    """The message names those that there are."""
    with pytest.raises(TypeError, match="has no setting hooklimit; there are: dir, then"):
        checkpoint_here("snap", hooklimit=3)  # type: ignore[call-arg]


def test_page_is_current() -> None:
    """docs/settings.md is what `make format` writes."""
    made = subprocess.run(
        [sys.executable, ROOT / "scripts/settings_page.py"], capture_output=True, text=True, check=True
    )
    assert (ROOT / "docs/settings.md").read_text() == made.stdout


def test_import_is_light() -> None:
    """Restores read settings too: the table needs nothing that is not loaded anyway."""
    code = "import libcriu_py, sys; old = set(sys.modules); import libcriu_py.settings; print(*set(sys.modules) - old)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["libcriu_py.settings"]
