"""
The binding builds against several versions of CRIU, without a warning, and its tests pass with each.

Which versions: the one that the package is built against, and the prefixes in
`LIBCRIU_PY_TEST_PREFIXES` (separated by colons; scripts/install-criu --prefix makes one).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from libcriu_py._native import built_prefix

ROOT = Path(__file__).parents[2]
COPIED = ("libcriu_py", "tests", "*.py", "*.toml", "*.md", "*.in", "LICENSE")


def prefixes() -> list[str]:
    """
    Give a prefix of each version that there is, that of the package first.
    """
    found: dict[str, str] = {}
    for prefix in (built_prefix(), *os.environ.get("LIBCRIU_PY_TEST_PREFIXES", "").split(":")):
        if prefix:
            argv = [f"{prefix}/sbin/criu", "--version"]
            found.setdefault(subprocess.run(argv, check=True, capture_output=True, text=True).stdout, prefix)
    return list(found.values())


def run(command: list[str], directory: Path, env: dict[str, str]) -> None:
    """
    Run a command, and show what it printed if it fails.
    """
    ended = subprocess.run(command, cwd=directory, env=env, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("prefix", prefixes())
def test_the_binding_works_with_a_version(prefix: str, tmp_path: Path) -> None:
    """
    A copy of the package, built against this prefix alone, passes the tests of the binding.

    With the installed version they run beside this one, so there it is the build that is tried.
    """
    for source in (path for pattern in COPIED for path in ROOT.glob(pattern)):
        if source.is_dir():
            shutil.copytree(source, tmp_path / source.name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "bin"))
        else:
            shutil.copy(source, tmp_path)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LIBCRIU_", "PYTEST_"))}
    env |= {
        "LIBCRIU_PY_PREFIX": prefix,
        "LIBCRIU_PY_WERROR": "1",
        "PYTHONPATH": str(tmp_path),
        "TMPDIR": str(tmp_path / "tmp"),
    }
    (tmp_path / "tmp").mkdir()
    run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], tmp_path, env)
    if prefix == built_prefix():
        run([sys.executable, "-c", "import libcriu_py._native as n; assert n.built_prefix()"], tmp_path, env)
        return
    tests = [
        str(path.relative_to(tmp_path))
        for kind in ("unit", "system")
        for path in sorted((tmp_path / "tests" / kind).glob("test_binding_*.py"))
        if path.name != Path(__file__).name
    ]
    run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], tmp_path, env)
