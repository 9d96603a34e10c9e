"""Where the criu program is looked for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from libcriu_py.criu import find
from libcriu_py.criu.native import built_prefix
from libcriu_py.errors import BinaryNotFound
from libcriu_py.snapshot import launcher
from tests.snapshots import launch_of_here, write_snapshot

if TYPE_CHECKING:
    from pathlib import Path


PACKAGED = "packages/libcriu_py_criu/bin"


def program(directory: Path) -> Path:
    """Make something that can be executed."""
    directory.mkdir(parents=True)
    path = directory / "criu"
    path.touch(mode=0o755)
    return path


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Put a program in each place, none in the system's."""
    names = ("named", "prefix/sbin", "data/libcriu_py/criu/sbin", PACKAGED, "path")
    found = {name: program(tmp_path / name) for name in names}
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "packages")])
    monkeypatch.setattr("libcriu_py.criu.native.built_prefix", lambda: "")
    monkeypatch.setattr(find, "_SYSTEM_DIRECTORIES", (str(tmp_path / "system"),))
    monkeypatch.setenv("LIBCRIU_PY_CRIU", str(found["named"]))
    monkeypatch.setenv("LIBCRIU_PY_PREFIX", str(tmp_path / "prefix"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return found


def test_the_places_are_searched_in_order(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable, the prefixes, the packaged one, PATH, then the system's directories."""
    assert find.find_criu() == str(places["named"])
    monkeypatch.delenv("LIBCRIU_PY_CRIU")
    for name in ("prefix/sbin", "data/libcriu_py/criu/sbin", PACKAGED, "path"):
        assert find.find_criu() == str(places[name])
        places[name].unlink()
    with pytest.raises(BinaryNotFound, match=re.escape("install it with pip install 'libcriu-py[criu]'")):
        find.find_criu()
    system = program(tmp_path / "system")
    assert find.find_criu() == str(system)


def test_a_named_program_must_be_there(places: dict[str, Path]) -> None:
    """A wrong LIBCRIU_PY_CRIU is an error, not a reason to look elsewhere."""
    places["named"].chmod(0o644)
    with pytest.raises(BinaryNotFound, match=r"LIBCRIU_PY_CRIU=.* is not an executable file"):
        find.find_criu()


OTHER = 4711
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root is protected, and can give files away")


def give_away(path: Path, how: str) -> str:
    """Let another user change a program; returns what is said of it."""
    if how == "owner":
        os.chown(path, OTHER, OTHER)
        return f"{path} belongs to uid {OTHER}"
    if how == "mode":
        path.chmod(0o777)
        return f"{path} can be written by others (mode 0777)"
    os.chown(path.parent, OTHER, OTHER)
    return f"{path.parent} belongs to uid {OTHER}"


def launched(snapshot: Path) -> str:
    """Return what the launcher says where it restores nothing: that of the criu comes before all else."""
    done = subprocess.run(
        [launcher.path(), "--no-fallback", "--mode", "root", snapshot],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    return done.stderr


@as_root
@pytest.mark.parametrize("how", ["owner", "mode", "directory"])
def test_root_passes_over_what_others_can_change(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It would run that user's program; Python and the launcher take the next one, and say so where there is none."""
    monkeypatch.delenv("LIBCRIU_PY_CRIU")
    monkeypatch.delenv("LIBCRIU_PY_PREFIX")
    said = give_away(places["data/libcriu_py/criu/sbin"], how)
    places[PACKAGED].unlink()
    assert find.find_criu() == str(places["path"])
    places["path"].unlink()
    with pytest.raises(BinaryNotFound, match=rf"no criu program that root could trust: {re.escape(said)}"):
        find.find_criu()
    snapshot = write_snapshot(tmp_path / "snap", launch_of_here(mode="root"))
    if not any(
        os.access(path, os.X_OK) for path in ("/usr/sbin/criu", "/usr/local/sbin/criu", f"{built_prefix()}/sbin/criu")
    ):
        assert f"no criu program that root could trust: {said}" in launched(snapshot)


@as_root
@pytest.mark.parametrize("how", ["owner", "mode", "directory"])
@pytest.mark.parametrize("name", ["named", "prefix/sbin"])
def test_root_is_warned_of_what_it_has_named(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    """A variable says that it is meant."""
    if name != "named":
        monkeypatch.delenv("LIBCRIU_PY_CRIU")
    said = give_away(places[name], how)
    with pytest.warns(RuntimeWarning, match=rf"root runs a criu that others can change: {re.escape(said)}"):
        assert find.find_criu() == str(places[name])
    snapshot = write_snapshot(tmp_path / "snap", launch_of_here(mode="root"))
    assert f"libcriu-py: root runs a criu that others can change: {said}\n" in launched(snapshot)


@pytest.fixture(scope="module")
def portable_launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the launcher as for other machines, which knows no prefix."""
    import build_ffi
    import build_launcher

    target = tmp_path_factory.mktemp("portable") / "launcher"
    with pytest.MonkeyPatch.context() as patch:
        criu = build_ffi.find_criu()._replace(prefix="")
        patch.setattr(build_launcher, "find_criu", lambda: criu)
        patch.delenv("LIBCRIU_PY_WERROR", raising=False)  # there are other warnings without optimisation
        build_launcher.compile_launcher(target, ["-O0"], static=False)
    return target


@as_root
@pytest.mark.parametrize(
    ("own", "packages"),
    [
        ("lib/python3.11/site-packages/libcriu_py/bin/libcriu-py-run", "lib/python3.11/site-packages"),
        ("bin/libcriu-py-run", "lib/python3.10/site-packages"),
        ("bin/libcriu-py-run", "lib/python3/dist-packages"),
        ("bin/libcriu-py-run", "lib64/python3.14/site-packages"),
    ],
)
def test_the_launcher_finds_the_packaged_criu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portable_launcher: Path, own: str, packages: str
) -> None:
    """Beside its package, or in the packages of the directory of programs that it is in."""
    for name in ("LIBCRIU_PY_CRIU", "LIBCRIU_PY_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    placed = tmp_path / own
    placed.parent.mkdir(parents=True)
    shutil.copy2(portable_launcher, placed)
    monkeypatch.setattr(launcher, "path", lambda: str(placed))
    said = give_away(program(tmp_path / packages / "libcriu_py_criu" / "bin"), "owner")
    snapshot = write_snapshot(tmp_path / "snap", launch_of_here(mode="root"))
    if not any(os.access(path, os.X_OK) for path in ("/usr/sbin/criu", "/usr/local/sbin/criu")):
        assert f"no criu program that root could trust: {said}" in launched(snapshot)
