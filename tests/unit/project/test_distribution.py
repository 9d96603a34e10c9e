"""What is published: the metadata, and what the source distribution holds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
NEEDED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "build_ffi.py",
    "build_launcher.py",
    "distributions/criu/libcriu_py_criu/__init__.py",
    "docs/engines.md",
    "examples/demo.py",
    "libcriu_py/csrc/binding/exports.map",
    "libcriu_py/csrc/common/files.h",
    "libcriu_py/csrc/launcher/launcher.c",
    "libcriu_py/csrc/portable/old_libc.c",
    "libcriu_py/py.typed",
    "licenses/LGPL-2.1",
    "licenses/protobuf-c",
    "pyproject.toml",
    "scripts/install-criu",
    "scripts/make-wheels",
    "setup.py",
    "tests/native/fuzz.c",
    "tests/unit/project/test_distribution.py",
)
PACKAGE_FILES = {".c", ".h", ".map", ".py", ".pyi", ".typed"}


def setup(*arguments: str | Path, cwd: Path = ROOT, **env: str) -> str:
    """Run setup.py, and return what it printed."""
    argv = [sys.executable, "-W", "ignore", "setup.py", "-q", *map(str, arguments)]
    done = subprocess.run(argv, cwd=cwd, env={**os.environ, **env}, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the names in a source distribution, without its own directory, and the text of PKG-INFO."""
    directory = tmp_path_factory.mktemp("sdist")
    setup("egg_info", "--egg-base", directory, "sdist", "--dist-dir", directory)
    (path,) = directory.glob("libcriu_py-*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2]: name for name in archive.getnames()}
        text = archive.extractfile(names["PKG-INFO"])
        assert text is not None
        return {**names, "PKG-INFO": text.read().decode()}


def test_the_source_distribution_has_the_tree(contents: dict[str, str]) -> None:
    """What builds it, its scripts, documents and tests, and each file of the package; nothing that was built."""
    assert set(NEEDED) <= set(contents)
    ours = [path for path in (ROOT / "libcriu_py").rglob("*") if path.suffix in PACKAGE_FILES]
    assert {path.relative_to(ROOT).as_posix() for path in ours} <= set(contents)
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")} <= set(contents)
    built = [name for name in contents if name.endswith((".so", ".pyc", ".o")) or name.startswith("libcriu_py/bin/")]
    assert built == []


def test_metadata(contents: dict[str, str]) -> None:
    """Addresses, the extra that pulls criu, all licences; and no link that needs the tree."""
    said = contents["PKG-INFO"]
    for name in ("Source", "Documentation", "Changelog", "Issues"):
        assert f"Project-URL: {name}, https://" in said
    assert 'Requires-Dist: libcriu-py-criu>=4.2; extra == "criu"' in said
    assert "License-Expression: MIT AND LGPL-2.1-only" in said
    for name in ("LICENSE", "licenses/LGPL-2.1", "licenses/README.md", "licenses/protobuf-c"):
        assert f"License-File: {name}\n" in said
    links = re.findall(r"\]\(([^)]*)\)", said)
    assert len(links) > 10
    assert [link for link in links if not link.startswith("https://")] == []
    pages = [link.partition("/blob/main/")[2] for link in links if "/blob/main/" in link]
    assert [page for page in pages if not (ROOT / page.partition("#")[0]).exists()] == []


def test_free_threaded_interpreters_are_refused() -> None:
    """By name, before anything is compiled."""
    code = "import sysconfig; sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1; import build_ffi"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    said = f"libcriu-py is not for free-threaded interpreters such as {sys.executable}: use one with the GIL"
    assert done.stderr == f"{said}\n"


def test_no_file_names_a_registry() -> None:
    """Which index packages come from is the machine's setting."""
    for path in (*(ROOT / "scripts").iterdir(), *(ROOT / "distributions").rglob("*.*"), ROOT / "Makefile"):
        if path.is_file():
            assert not re.search(r"pypi\.org|pythonhosted|debian\.org", path.read_text(encoding="utf-8")), path


def test_other_systems_get_python_alone(tmp_path: Path) -> None:
    """A wheel built elsewhere than on Linux installs anywhere, so that libraries may depend on it: it has no C."""
    code = """
    import runpy, sys, sysconfig
    import setuptools, setuptools.command.bdist_wheel
    sysconfig.get_config_vars()  # what the build asks of this system, before it is another
    sys.platform = "darwin"
    runpy.run_path("setup.py", run_name="__main__")
    """
    options = ["-q", "egg_info", "--egg-base", tmp_path, "build", "--build-base", tmp_path / "build"]
    argv = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *map(str, options), "bdist_wheel"]
    subprocess.run([*argv, "--dist-dir", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert "libcriu_py/hooks/registry.py" in names
    assert {Path(name).suffix for name in names} == {".py", ".pyi", ".typed"}
