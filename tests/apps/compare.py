"""
Snapshot real programs without changing a line, and compare their restored runs with conventional ones.

Run by `scripts/test-apps` in an environment that has the programs. Output, status and written files must be the same.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class App(NamedTuple):
    """
    A program and one use of it.

    Attributes:
        name: What is on PATH, or a module after "-m ", or a script.
        arguments: Of the run that is compared; {url} is a local HTTP server.
        files: What its directory holds before, by relative name.
        stdin: Its input.
        once: Why it cannot be warmed up; empty if it can.
    """

    name: str
    arguments: Sequence[str]
    files: dict[str, str] = {}  # noqa: RUF012 - never changed
    stdin: str = ""
    once: str = ""


OURS = (sys.executable, "-m", "libcriu_py")
SAME = "the same"
UGLY = "import os,sys\ndef f( a,b ):\n  return {'a':a,'b':b}\n"
CSV = "name,amount\n" + "".join(f"n{number % 7},{number}\n" for number in range(200))
NOTEBOOK = (
    '{"cells": [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Title\\n", "text"]}], '
    '"metadata": {}, "nbformat": 4, "nbformat_minor": 5}'
)
DJANGO = """
import sys
from django.conf import settings
settings.configure(SECRET_KEY="x", INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
                   DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}},
                   DEFAULT_AUTO_FIELD="django.db.models.AutoField")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
LEARN = """
import sys
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
data = load_iris()
model = RandomForestClassifier(n_estimators=int(sys.argv[1]), random_state=0).fit(data.data, data.target)
print(round(model.score(data.data, data.target), 4))
"""
ORM = """
import sys
from sqlalchemy import create_engine, text
engine = create_engine("sqlite:///shell.db")
with engine.begin() as connection:
    for line in sys.stdin:
        result = connection.execute(text(line))
        print(result.fetchall() if result.returns_rows else "ok")
"""
SQL = "create table t (x int)\ninsert into t values (7)\nselect * from t\n"
TABLE = """
import sys
import pandas as pd
print(pd.read_csv(sys.argv[1]).groupby("name").amount.agg(["sum", "mean"]).to_string())
"""
TESTS = "import pytest\n@pytest.mark.parametrize('x', range(3))\ndef test_x(x):\n    assert x < 2\n"

APPS = {
    "formatter": App("black", ["--diff", "ugly.py"], {"ugly.py": UGLY}),
    "linter": App("flake8", ["ugly.py"], {"ugly.py": UGLY}),
    "HTTP client": App("http", ["--ignore-stdin", "--print=b", "{url}page.txt"], {"page.txt": "hello\n"}),
    "site generator": App(
        "mkdocs", ["build", "-q", "-d", "out"], {"mkdocs.yml": "site_name: s\n", "docs/index.md": "# Home\n"}
    ),
    "notebook converter": App("jupyter-nbconvert", ["--to", "markdown", "--stdout", "n.ipynb"], {"n.ipynb": NOTEBOOK}),
    "ORM shell": App("orm.py", [], {"orm.py": ORM}, SQL),
    "test runner": App("pytest", ["-q", "-p", "no:cacheprovider", "test_it.py"], {"test_it.py": TESTS}),
    "management command": App("manage.py", ["migrate"], {"manage.py": DJANGO}, once="RuntimeError"),
    "data tool": App("csvstat", ["--csv", "data.csv"], {"data.csv": CSV}),
    "data frame script": App("table.py", ["data.csv"], {"table.py": TABLE, "data.csv": CSV}),
    "machine learning": App("learn.py", ["20"], {"learn.py": LEARN}),
    "template engine": App("-m cookiecutter", ["--version"]),
}

# Times and durations differ from run to run.
_VOLATILE = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?|\b\d+\.\d\ds\b|\b\d+\.\d{6}\+00:00")


class Outcome(NamedTuple):
    """What a run gave."""

    status: int
    stdout: str
    stderr: str
    files: dict[str, str]


def prepare(app: App, directory: Path) -> None:
    """Write the files of an app."""
    for name, content in app.files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def call(command: Sequence[str], app: App, directory: Path) -> subprocess.CompletedProcess[str]:
    """Dump or run an app, both in one environment: what a program has read of it must not differ."""
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "SOURCE_DATE_EPOCH": "1700000000", "COLUMNS": "100"}
    return subprocess.run(command, input=app.stdin, capture_output=True, text=True, cwd=directory, env=env, check=False)


def run(command: Sequence[str], app: App, directory: Path, url: str) -> Outcome:
    """Run an app in a fresh directory that has always the same path."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    prepare(app, directory)
    arguments = [word.format(url=url) for word in app.arguments]
    done = call([*command, *arguments], app, directory)
    files = {
        str(path.relative_to(directory)): _VOLATILE.sub("<time>", path.read_text("utf-8", "replace"))
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.suffix not in {".sqlite3", ".db", ".gz", ".pyc"}
    }
    return Outcome(done.returncode, _VOLATILE.sub("<time>", done.stdout), _VOLATILE.sub("<time>", done.stderr), files)


def commands(app: App, scripts: Path, directory: Path) -> tuple[list[str], list[str]]:
    """Return the conventional command, and what `libcriu-py snapshot` is told."""
    if app.name.startswith("-m "):
        return [sys.executable, *app.name.split()], app.name.split()
    if app.name.endswith(".py"):
        script = directory.with_name(f"{directory.name}-{app.name}")
        script.write_text(app.files[app.name])
        return [sys.executable, str(script)], [str(script)]
    return [str(scripts / app.name)], [str(scripts / app.name)]


def compare(name: str, app: App, place: Path, url: str) -> dict[str, str]:
    """
    Run one app both ways, the restored one twice; with its imports done, and warmed up.

    Returns:
        What came of each kind of snapshot: SAME, why there is none, or what differs.
    """
    directory = place / "work"
    directory.mkdir(exist_ok=True)
    conventional, target = commands(app, Path(sys.executable).parent, directory)
    expected = run(conventional, app, directory, url)
    arguments = shlex.join(word.format(url=url) for word in app.arguments)
    found = {}
    for kind, options in (("imports done", []), ("warmed up", ["--warm-up", arguments])):
        snapshot = place / f"{name} {kind}".replace(" ", "-")
        shutil.rmtree(directory)
        directory.mkdir()
        prepare(app, directory)
        made = call([*OURS, "snapshot", "-o", str(snapshot), *options, *target], app, directory)
        if made.returncode != 0:
            found[kind] = "no snapshot: " + " ".join(made.stderr.splitlines()[-2:])
            continue
        found[kind] = difference(expected, [*OURS, "run", "--no-fallback", str(snapshot), "--"], app, directory, url)
    return found


def difference(expected: Outcome, command: Sequence[str], app: App, directory: Path, url: str) -> str:
    """Run a command twice; returns what differs from what is expected, or SAME."""
    for _ in range(2):
        restored = run(command, app, directory, url)
        for what in Outcome._fields:
            one, other = getattr(expected, what), getattr(restored, what)
            if one != other:
                return f"{what} differs:\n  conventional: {one!r}\n  restored: {other!r}"
    return SAME


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main(names: Sequence[str]) -> int:
    """
    Compare all apps, or those named.

    Returns:
        0 where nothing differs.
    """
    failed = 0
    with tempfile.TemporaryDirectory(prefix="apps-") as base:
        place = Path(base)
        (place / "page.txt").write_text("hello\n")
        handler = functools.partial(_Quiet, directory=base)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_address[1]}/"
            for name, app in APPS.items():
                if names and name not in names:
                    continue
                found = compare(name, app, place, url)
                # What cannot be run twice in a process is refused, by its own error.
                right = found["imports done"] == SAME and (
                    found["warmed up"] == SAME or (app.once and app.once in found["warmed up"])
                )
                failed += not right
                said = "; ".join(f"{kind}: {what}" for kind, what in found.items())
                print(f"{name} ({app.name}): {said}", flush=True)
            server.shutdown()
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
