"""The snapshot directory: drafts, manifests, and what is refused."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from libcriu_py import Program, Snapshot, SnapshotError, SnapshotMismatch, SnapshotUnsafe
from libcriu_py.snapshot import record as launch_record
from libcriu_py.snapshot.identity import cpu_flags, refuse_mismatches
from libcriu_py.snapshot.manifest import SLOTS, mapped_files
from libcriu_py.snapshot.record import ComparedFile
from libcriu_py.snapshot.staging import Staging
from tests.snapshots import MANIFEST_OF_HERE, launch_of_here

if TYPE_CHECKING:
    from pathlib import Path

    from libcriu_py.snapshot.record import Launch


def record() -> Launch:
    """Return a record as a dump of this process would write it."""
    program = Program("script", "program.py")
    command = ("/usr/bin/python3", "program.py")
    return launch_of_here(command=command, program=program, pids=(12345,), mapped=mapped_files([os.getpid()]))


def facts(**details: Any) -> dict[str, Any]:
    """Return a manifest as a dump of this process would write it."""
    return {**MANIFEST_OF_HERE, "details": details or {"note": "é"}}


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Return a published snapshot without images of its own."""
    staging = Staging(tmp_path / "snap", replace=False)
    staging.populate()
    (tmp_path / "snap" / "images" / "pages-1.img").write_bytes(b"pages")
    staging.publish(record(), facts())
    return tmp_path / "snap"


def change(snapshot: Path, **values: Any) -> None:
    """Change what a record says."""
    path = snapshot / "launch"
    path.write_bytes(launch_record.encode(launch_record.decode(path.read_bytes())._replace(**values)))


def test_published_snapshot_is_private_and_complete(snapshot: Path) -> None:
    """Directories are 0700 and files 0600; every file is named with its size and digest."""
    for path in snapshot.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    opened = Snapshot.open(snapshot)
    assert opened.files["images/pages-1.img"].size == 5
    assert opened.files.keys() == {"images/pages-1.img", *(f"slots/{name}" for name in SLOTS)}
    assert opened.program == Program("script", "program.py")
    assert opened.command == ["/usr/bin/python3", "program.py"]
    assert opened.details == {"note": "é"}
    assert opened.pids == [12345]
    assert opened.verify() == []
    assert [mismatch for mismatch in opened.check() if mismatch.fatal] == []


def test_directory_without_manifest_is_no_snapshot(tmp_path: Path) -> None:
    """Nothing, a file, or a dump that was not completed: each is refused with how to make a snapshot."""
    (tmp_path / "file").touch()
    Staging(tmp_path / "incomplete", replace=False).populate()
    for name, what in (
        ("nothing", "there is no such directory; .*libcriu-py snapshot -o"),
        ("file", "it is a file; .*libcriu-py snapshot .*/file"),
        ("incomplete", "it has no manifest.json; .*libcriu-py snapshot -o"),
    ):
        with pytest.raises(SnapshotError, match=f"{name} is no snapshot: {what}"):
            Snapshot.open(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is damaged"), ("[]", "not a manifest"), ('{"machine": {}}', "lacks python, created")],
)
def test_damaged_manifest(snapshot: Path, content: str, message: str) -> None:
    """A manifest that cannot be used is refused in one sentence."""
    (snapshot / "manifest.json").write_text(content)
    with pytest.raises(SnapshotError, match=message):
        Snapshot.open(snapshot)


def test_snapshot_of_an_older_format(snapshot: Path) -> None:
    """One that has all in its manifest is refused with what to do."""
    (snapshot / "launch").unlink()
    with pytest.raises(SnapshotError, match=r"older versions of libcriu_py had; make the snapshot anew"):
        Snapshot.open(snapshot)


@pytest.mark.parametrize("name", [".", "launch", "manifest.json"])
def test_snapshot_that_others_can_write_is_refused(snapshot: Path, name: str) -> None:
    """Restoring is executing: what another user could have written is not restored."""
    (snapshot / name).chmod(0o777)
    with pytest.raises(SnapshotUnsafe, match=r"can be written by others .*chmod go-w"):
        Snapshot.open(snapshot)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_snapshot_of_another_user_is_refused(snapshot: Path) -> None:
    """The snapshot of another user is not even restored by root."""
    os.chown(snapshot, 4711, 4711)
    with pytest.raises(SnapshotUnsafe, match="belongs to uid 4711"):
        Snapshot.open(snapshot)


def test_each_mismatch_is_named(snapshot: Path, tmp_path: Path) -> None:
    """Architecture, processor, user and files: one sentence each, all in one exception."""
    mapped = tmp_path / "library.so"
    mapped.write_text("changed")
    entry = ComparedFile(str(mapped), 7, 1)
    change(snapshot, cpu_flags=(*cpu_flags(), "quantum"), mapped=(entry, entry._replace(path="/nowhere/lib.so")))
    manifest = json.loads((snapshot / "manifest.json").read_text())
    manifest["machine"]["kernel"] = "0.99"
    (snapshot / "manifest.json").write_text(json.dumps(manifest))
    (snapshot / "images" / "pages-1.img").write_bytes(b"page")
    opened = Snapshot.open(snapshot)
    texts = [mismatch.text for mismatch in opened.check()]
    assert [mismatch.text for mismatch in opened.check() if not mismatch.fatal] == [texts[4]]
    assert "lacks quantum" in texts[0]
    assert "has 4 bytes instead of 5" in texts[1]
    assert "was changed after the dump" in texts[2]
    assert "is not there" in texts[3]
    assert "at the dump it was 0.99" in texts[4]
    assert len(texts) == 5
    with pytest.raises(SnapshotMismatch, match=r"quantum.*\(and 1 more\)"):
        refuse_mismatches(opened)


def test_other_architecture(snapshot: Path) -> None:
    """A snapshot of another kind of machine is refused as such."""
    change(snapshot, arch="riscv128")
    assert Snapshot.open(snapshot).check()[0].text.startswith("the snapshot is for riscv128 processors")


def test_verify_reads_every_byte(snapshot: Path) -> None:
    """A changed byte that leaves the size alone is found by the digest."""
    (snapshot / "images" / "pages-1.img").write_bytes(b"Pages")
    (snapshot / "slots" / "stdin").unlink()
    text = (snapshot / "manifest.json").read_text()
    (snapshot / "manifest.json").write_text(text.replace("é" if "é" in text else "\\u00e9", "e"))
    texts = [mismatch.text for mismatch in Snapshot.open(snapshot).verify()]
    assert len(texts) == 3
    assert "pages-1.img is damaged: its checksum differs" in texts[0]
    assert "cannot be read" in texts[1]
    assert "manifest.json is damaged: its checksum differs" in texts[2]


def test_draft_refuses_what_is_there(tmp_path: Path) -> None:
    """Neither files nor directories that hold something are taken."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(FileExistsError, match="is not empty"):
        Staging(tmp_path / "full", replace=False)
    with pytest.raises(FileExistsError, match="is not a directory"):
        Staging(tmp_path / "full" / "file", replace=True)


def test_draft_is_taken_by_one(tmp_path: Path) -> None:
    """An empty directory is not empty any more for whoever comes next, before anything is dumped into it."""
    (tmp_path / "snap").mkdir()
    staging = Staging(tmp_path / "snap", replace=False)
    with pytest.raises(FileExistsError, match="another snapshot is being made"):
        Staging(tmp_path / "snap", replace=False)
    staging.populate()
    assert (tmp_path / "snap" / "images").is_dir()


def test_draft_that_cannot_be_made() -> None:
    """The exception is the one that fits, and says what to do."""
    with pytest.raises(FileNotFoundError, match=r"/proc/snap cannot be made \(No such file .* choose a directory"):
        Staging("/proc/snap", replace=False)


def test_discarded_draft_leaves_nothing(tmp_path: Path) -> None:
    """A directory that was made is removed, an empty one that was there stays."""
    (tmp_path / "there").mkdir()
    for name in ("new", "there"):
        staging = Staging(tmp_path / name, replace=False)
        staging.populate()
        staging.discard()
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "there").iterdir()) == []


def test_draft_that_was_left_is_in_nobodys_way(snapshot: Path) -> None:
    """What one that was killed has left, maybe of our own pid in a pid namespace, does not hinder the next one."""
    Staging(snapshot, replace=True).populate()
    staging = Staging(snapshot, replace=True)
    staging.populate()
    staging.publish(record(), facts(new=True))
    assert Snapshot.open(snapshot).details == {"new": True}


def test_replaced_snapshot_is_whole_at_any_time(snapshot: Path) -> None:
    """The old snapshot stays until the new one is published, and goes then."""
    staging = Staging(snapshot, replace=True)
    staging.populate()
    assert Snapshot.open(snapshot).details == {"note": "é"}
    staging.publish(record(), facts(new=True))
    assert Snapshot.open(snapshot).details == {"new": True}
    assert os.listdir(snapshot.parent) == ["snap"]
