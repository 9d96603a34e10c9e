"""Where the criu program is looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from libcriu_py.criu import find
from libcriu_py.errors import BinaryNotFound

if TYPE_CHECKING:
    from pathlib import Path


def program(directory: Path) -> Path:
    """Make something that can be executed."""
    directory.mkdir(parents=True)
    path = directory / "criu"
    path.touch(mode=0o755)
    return path


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Put a program in each place, none in the system's."""
    found = {name: program(tmp_path / name) for name in ("named", "prefix/sbin", "data/libcriu_py/criu/sbin", "path")}
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
    """The variable, the prefixes, PATH, then the system's directories."""
    assert find.find_criu() == str(places["named"])
    monkeypatch.delenv("LIBCRIU_PY_CRIU")
    for name in ("prefix/sbin", "data/libcriu_py/criu/sbin", "path"):
        assert find.find_criu() == str(places[name])
        places[name].unlink()
    with pytest.raises(BinaryNotFound, match="scripts/install-criu"):
        find.find_criu()
    system = program(tmp_path / "system")
    assert find.find_criu() == str(system)


def test_a_named_program_must_be_there(places: dict[str, Path]) -> None:
    """A wrong LIBCRIU_PY_CRIU is an error, not a reason to look elsewhere."""
    places["named"].chmod(0o644)
    with pytest.raises(BinaryNotFound, match=r"LIBCRIU_PY_CRIU=.* is not an executable file"):
        find.find_criu()
