"""
The binding builds against several versions of CRIU, without a warning, and its tests pass with each.

Which versions: the one that the package is built against, and the prefixes in
`LIBCRIU_PY_TEST_PREFIXES` (separated by colons; scripts/install-criu --prefix makes one).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from libcriu_py.criu.native import built_prefix

ROOT = Path(__file__).parents[3]
COPIED = ("libcriu_py", "tests", "*.py", "*.toml", "*.md", "*.in", "LICENSE")


def prefixes() -> list[str]:
    """Return a prefix of each version that there is, that of the package first."""
    found: dict[str, str] = {}
    for prefix in (built_prefix(), *os.environ.get("LIBCRIU_PY_TEST_PREFIXES", "").split(":")):
        if prefix:
            argv = [f"{prefix}/sbin/criu", "--version"]
            found.setdefault(subprocess.run(argv, check=True, capture_output=True, text=True).stdout, prefix)
    return list(found.values())


def run(command: list[str], directory: Path, env: dict[str, str]) -> None:
    """Run a command, and show what it printed if it fails."""
    ended = subprocess.run(command, cwd=directory, env=env, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"


def fingerprint(prefix: str) -> str:
    """Return what changes when a build against a prefix may come out otherwise: sources, CRIU's files, and tools."""
    sources = [*ROOT.glob("*.py"), ROOT / "pyproject.toml", *ROOT.glob("libcriu_py/csrc/*/*")]
    installed = [path for kind in ("include", "lib") for path in Path(prefix, kind).rglob("*") if path.is_file()]
    compiler = subprocess.run(["cc", "--version"], check=True, capture_output=True).stdout
    tools = [sys.version, sys.executable, prefix, *map(version, ("cffi", "setuptools"))]
    found = hashlib.sha256(compiler + "\0".join(tools).encode())
    for path in sorted([*sources, *installed]):
        found.update(f"{path}\0{path.stat().st_mode}\0".encode() + path.read_bytes())
    return found.hexdigest()


def build(prefix: str, directory: Path, env: dict[str, str]) -> None:
    """Build the package that is in a directory, or take what the same sources were built to before, from build/."""
    kept = ROOT / "build" / "binding-versions" / Path(prefix).name
    mark, key = kept / "fingerprint", fingerprint(prefix)
    if not mark.exists() or mark.read_text(encoding="ascii") != key:
        run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], directory, env)
        shutil.rmtree(kept, ignore_errors=True)
        for path in [*directory.glob("libcriu_py/*.so"), *directory.glob("libcriu_py/bin/*")]:
            target = kept / path.relative_to(directory)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        mark.write_text(key, encoding="ascii")
    shutil.copytree(kept / "libcriu_py", directory / "libcriu_py", dirs_exist_ok=True)


BINDING = (
    *(f"tests/unit/criu/test_{name}.py" for name in ("arguments", "declarations", "find", "texts")),
    "tests/unit/images/test_readers.py",
    *(f"tests/system/criu/test_{name}.py" for name in ("dump", "pitfalls")),
)
"""The tests of the binding."""


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
    build(prefix, tmp_path, env)
    if prefix == built_prefix():
        run([sys.executable, "-c", "import libcriu_py.criu.native as n; assert n.built_prefix()"], tmp_path, env)
        return
    assert all((tmp_path / name).exists() for name in BINDING)
    run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *BINDING], tmp_path, env)
