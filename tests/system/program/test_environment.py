"""What a program changes in its environment before the dump, in its copies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.system.cli_command import Command, write

if TYPE_CHECKING:
    from pathlib import Path

CHANGES = """\
import os
os.environ.setdefault("ADDED", "by the program")
os.environ["CHANGED"] = "by the program"
os.environ.pop("DELETED", None)
"""

SHOW = """\
import json, os, subprocess, sys
code = "import json, os; print(json.dumps(dict(os.environ)))"
child = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
assert all(child.get(name) == os.environ.get(name) for name in ("ADDED", "CHANGED", "DELETED", "TOOL_TOKEN"))
print(json.dumps(dict(os.environ)))
"""

OWN = f"from libcriu_py import checkpoint\nwith checkpoint():\n    import changes\n{SHOW}"

START = {"CHANGED": "at the start", "DELETED": "at the start"}

CASES: dict[str, tuple[dict[str, str], list[str | None]]] = {
    "that of the dump": (START, ["by the program", "by the program", None]),
    "without them": ({}, ["by the program", None, None]),
    "others": ({"ADDED": "a", "CHANGED": "c", "DELETED": "d"}, ["a", "c", "d"]),
    "empty ones": ({"ADDED": "", "CHANGED": "", "DELETED": ""}, ["", "", ""]),
}
"""Environments of launchers, and what their copies have of ADDED, CHANGED and DELETED."""


def snap(command: Command, source: str, *options: str, **env: str) -> Path:
    """Make a snapshot of a program that may import `changes`; its copies may differ in what it has read."""
    env.setdefault("LIBCRIU_PY_ENV_CHECK", "off")
    if not (command.place / "changes.py").exists():
        write(command.place / "changes.py", CHANGES)
    script = write(command.place / "app.py", source)
    done = command("snapshot", "--replace", "-o", command.place / "snap", *options, script, env=env)
    assert done.returncode == 0, done.stderr
    return command.place / "snap"


def seen(command: Command, snapshot: Path, **env: str) -> dict[str, str]:
    """Return the environment of a copy."""
    variables: dict[str, str] = json.loads(command.restored(snapshot, env=env))
    return variables


@pytest.mark.parametrize("source", [f"import changes\n{SHOW}", OWN], ids=["prepared", "own"])
def test_changes_are_over_the_environment_of_the_launcher(command: Command, source: str) -> None:
    """What is new is added, what was changed or deleted is so where the launcher has what the program began with."""
    snapshot = snap(command, source, **START)
    for env, expected in CASES.values():
        variables = seen(command, snapshot, UNTOUCHED="1", **env)
        assert [variables.get(name) for name in ("ADDED", "CHANGED", "DELETED", "UNTOUCHED")] == [*expected, "1"]


@pytest.mark.parametrize("source", [f"import changes\n{SHOW}", OWN], ids=["prepared", "own"])
def test_what_the_snapshot_needed_is_no_change(one: Command, source: str) -> None:
    """Neither our variables, nor the locale that the interpreter coerced, nor secrets are in copies."""
    more = 'os.environ["TOOL_TOKEN"] = os.environ["LIBCRIU_PY_MADE_UP"] = "x"\n'
    write(one.place / "changes.py", CHANGES + more)
    snapshot = snap(one, source, "--memory", "copy", "--scrub", "*_PIN", LANG="", LC_ALL="", **START, CARD_PIN="1")
    copy = seen(one, snapshot)
    assert set(copy) - {*one.mode.account.environment(), *one.mode.env} == {"ADDED"}


def test_changes_can_be_left_out(one: Command) -> None:
    """Without the built-in resource a copy has what its launcher has."""
    snapshot = snap(one, f"import changes\n{SHOW}", LIBCRIU_PY_RESOURCES="-environment")
    assert "ADDED" not in seen(one, snapshot)


def test_secrets_of_the_program_are_in_copies_where_they_are_not_wiped(one: Command) -> None:
    """Who has switched that off has them treated as all other variables."""
    write(one.place / "changes.py", 'import os\nos.environ["TOOL_TOKEN"] = "x"\n')
    snapshot = snap(one, OWN, LIBCRIU_PY_RESOURCES="-secrets")
    assert "TOOL_TOKEN" in seen(one, snapshot)


def test_a_warm_up_leaves_what_modules_set_at_their_import(one: Command) -> None:
    """They will not be imported again; what the run itself has set, it sets again."""
    source = f"""\
import os
def main():
    print(os.environ.get("ADDED"), os.environ.get("CHANGED"), os.environ.get("DELETED"), os.environ.get("OF_THE_RUN"))
    import changes
    os.environ["ADDED"] = os.environ["OF_THE_RUN"] = "by the run"
    os.environb[b"ALSO"] = b"by the run"
    del os.environ["LANG"]
main()
{SHOW}"""
    snapshot = snap(one, source, "--warm-up", "", **START)
    first, last = one.restored(snapshot, env=START).splitlines()
    assert first == "by the program by the program None None"
    assert json.loads(last)["ADDED"] == "by the run"
    assert json.loads(one.restored(snapshot, env={"LANG": "C"}).splitlines()[1]).get("LANG") is None


def test_an_overwritten_block_says_nothing(one: Command) -> None:
    """Where a title was written over what the process was started with, nothing counts as changed."""
    title = "import setproctitle\nsetproctitle.setproctitle('a title')\n"
    snapshot = snap(one, title + OWN, **START)
    variables = seen(one, snapshot, **START)
    assert ("ADDED" in variables, variables["CHANGED"], variables["DELETED"]) == (False, "at the start", "at the start")
    snapshot = snap(one, OWN.replace("import changes", "import changes, setproctitle; setproctitle.setproctitle('x')"))
    assert seen(one, snapshot)["ADDED"] == "by the program"


def test_what_site_modules_set_counts(one: Command) -> None:
    """A sitecustomize runs once, as an import does, also where the program is started anew to checkpoint itself."""
    write(one.place / "site" / "sitecustomize.py", 'import os\nos.environ.setdefault("OF_THE_SITE", "1")\n')
    path = str(one.place / "site")
    for source in (SHOW, OWN):
        snapshot = snap(one, source, PYTHONPATH=path)
        assert seen(one, snapshot, PYTHONPATH=path)["OF_THE_SITE"] == "1"
        assert seen(one, snapshot, PYTHONPATH=path, OF_THE_SITE="2")["OF_THE_SITE"] == "2"


def test_a_copy_that_checkpoints_itself_counts_from_its_own_start(one: Command) -> None:
    """What its launcher gave it is no change of the program, and what both generations changed is there."""
    source = f"""\
import os
from libcriu_py import checkpoint
with checkpoint():
    import changes
if os.environ.get("SECOND"):
    with checkpoint(os.environ.pop("SECOND")):
        os.environ["LATER"] = "1"
{SHOW}"""
    first = snap(one, source, **START)
    second = one.place / "second"
    made = one("run", "--no-fallback", first, env={"SECOND": str(second), "ONCE": "1", **START})
    assert (made.returncode, made.stdout) == (0, ""), made.stderr
    variables = seen(one, second, **START)
    assert [variables.get(name) for name in ("ADDED", "CHANGED", "DELETED", "LATER", "ONCE", "SECOND")] == [
        "by the program",
        "by the program",
        None,
        "1",
        None,
        None,
    ]
