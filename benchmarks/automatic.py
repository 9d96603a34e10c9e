"""
Unmodified commands from PyPI, started plainly and by `libcriu-py auto`: times, and whether both say the same.

    python -m benchmarks.automatic DIRECTORY

DIRECTORY gets an environment for each command, once. The table goes into docs/auto.md.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import fill
from libcriu_py.snapshot import launcher

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "auto.md"
SETTLED = ROOT / "tests" / "system" / "auto" / "settled.py"
ROUNDS = 5
FIRST = 2
"""Starts before those that are measured: conventional ones, and one that shows what else is imported."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "black": ("black", "--check", "small.py"),
    "pylint": ("pylint", "--score=n", "small.py"),
    "sqlfluff": ("sqlfluff", "lint", "--dialect", "ansi", "small.sql"),
    "sphinx": ("sphinx-build", "-q", "-E", "pages", "built"),
    "meson": ("meson", "introspect", "--targets", "meson.build"),
    "poetry": ("poetry", "check", "--no-ansi"),
    "awscli": ("aws", "configure", "list"),
    "scrapy": ("scrapy", "version", "-v"),
    "tox": ("tox", "list"),
    "nox": ("nox", "--list"),
    "pre-commit": ("pre-commit", "validate-config"),
    "mypy": ("mypy", "small.py"),
    "httpie": ("http", "--offline", "--ignore-stdin", "POST", "example.org", "a=b"),
    "datasette": ("datasette", "plugins"),
    "glances": ("glances", "--version"),
}
FILES = {
    "small.py": '"""Text."""\n\nimport os\n\n\ndef join(name):\n    """Text."""\n    return os.path.join(name, "x")\n',
    "small.sql": "SELECT a FROM t\n",
    "tox.ini": "[tox]\nenvlist = py\nskipsdist = true\n[testenv]\ncommands = true\n",
    "noxfile.py": 'import nox\n\n\n@nox.session\ndef tests(session):\n    "Text."\n    session.run("true")\n',
    ".pre-commit-config.yaml": "repos: []\n",
    "pyproject.toml": '[tool.poetry]\nname = "x"\nversion = "0.1"\ndescription = "d"\nauthors = []\n',
    "meson.build": "project('x')\n",
    "pages/conf.py": 'project = "x"\n',
    "pages/index.rst": "x\n=\n\ntext\n",
}


class Run(NamedTuple):
    """One run of a command."""

    seconds: float
    said: tuple[int, bytes, bytes]


class Row(NamedTuple):
    """The times of a command, in seconds."""

    name: str
    conventional: float
    automatic: float
    is_same: bool

    @property
    def gain(self) -> float:
        """How many times as fast the copies are."""
        return self.conventional / self.automatic


def install(directory: Path, package: str) -> Path:
    """Make the environment of a command once, with this package in it; return its programs' directory."""
    place = directory / package
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, package, "cffi", "rich"], check=True)
        (packages,) = place.glob("lib/python*/site-packages")
        (packages / "libcriu_py.pth").write_text(f"{ROOT}\n", encoding="utf-8")
        (place / "done").touch()
    return place / "bin"


def run(argv: list[str], place: Path, env: dict[str, str]) -> Run:
    """Run a command to its end."""
    start = time.perf_counter()
    done = subprocess.run(argv, cwd=place, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return Run(time.perf_counter() - start, (done.returncode, done.stdout, done.stderr))


def measure(name: str, bin_directory: Path, place: Path, env: dict[str, str]) -> Row:
    """Run a command in turns."""
    plain = [str(bin_directory / COMMANDS[name][0]), *COMMANDS[name][1:]]
    automatic = [launcher.path(), "--auto-start", sys.executable, *plain]
    run(plain, place, env)
    for _ in range(FIRST):
        run([sys.executable, "-I", str(SETTLED), *automatic], place, env)
    pairs = [(run(plain, place, env), run(automatic, place, env)) for _ in range(ROUNDS)]
    return Row(
        name,
        statistics.median(one.seconds for one, _ in pairs),
        statistics.median(other.seconds for _, other in pairs),
        all(one.said == other.said for one, other in pairs),
    )


def table(rows: list[Row]) -> str:
    """Return the rows for the document."""
    lines = ["| command | conventional, ms | by `auto`, ms | times as fast |\n| --- | ---: | ---: | ---: |\n"]
    for row in rows:
        words = " ".join(COMMANDS[row.name])
        gain = f"{row.gain:.1f}" if row.is_same else "other output"
        lines.append(f"| `{words}` | {row.conventional * 1000:.0f} | {row.automatic * 1000:.0f} | {gain} |\n")
    gains = [row.gain for row in rows]
    return "".join(lines) + f"\nMedians of {ROUNDS} runs in turns. Median gain: {statistics.median(gains):.1f}.\n"


def main() -> int:
    """Measure all commands, and write the table; return 1 if one says something else as a copy."""
    directory = Path(sys.argv[1]).resolve()
    place, cache = directory / "project", directory / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    for name, text in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if not name.startswith("LIBCRIU_PY_")}
    env["LIBCRIU_PY_CACHE"] = str(cache)
    rows = []
    for name in COMMANDS:
        row = measure(name, install(directory, name), place, env)
        times = f"{row.conventional * 1000:6.0f} {row.automatic * 1000:6.0f} {row.gain:5.1f}"
        print(f"{name:10} {times} {'same' if row.is_same else 'OTHER'} output", flush=True)
        rows.append(row)
    gains = [row.gain for row in rows]
    print(f"median {statistics.median(gains):.1f}, least {min(gains):.1f}")
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), "auto", table(rows)), encoding="utf-8")
    return 0 if all(row.is_same for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
