"""Blocks of memory that several snapshots share through a store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.conftest import CRIU_MODES, by_criu
from tests.system.mapped_programs import record_of, take_mapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode
    from tests.system.selfdump import SelfDump

    Directories = Callable[[Account], Path]
    Two = tuple[SelfDump, SelfDump, Path]

MEGABYTES = 16
READER = f"""
import sys
from libcriu_py import checkpoint
block = bytes(range(256)) * ({MEGABYTES} << 12)
with checkpoint():
    own = bytearray(b"o") * (2 << 20)
    own[:3] = sys.argv[1].encode()
print(own[:4].decode(), block.count(7), flush=True)
sys.stdin.readline()
print(block == bytes(range(256)) * ({MEGABYTES} << 12), flush=True)
"""
SHARING = """
import json, os, sys
from libcriu_py import PIPE, restore

def mapping(pid):
    found = {}
    for line in open(f"/proc/{pid}/smaps"):
        fields = line.split(None, 5)
        if len(fields) == 6:
            here = "/memory/" in fields[5]
            if here:
                found["inode"] = int(fields[4])
        elif here and fields[0] in {"Rss:", "Pss:"}:
            found[fields[0]] = int(fields[1])
    return found

copies = [restore(path, stdin=PIPE, stdout=PIPE, encoding="utf-8") for path in sys.argv[1:]]
said = [copy.stdout.readline() for copy in copies]
maps = [mapping(copy.pid) for copy in copies]
said += [copy.communicate("go on\\n")[0] for copy in copies]
print(json.dumps({"said": said, "maps": maps}))
"""


def command(mode: Mode, *words: object) -> subprocess.CompletedProcess[Any]:
    """Run a subcommand."""
    return mode.run([mode.account.python, "-m", "libcriu_py", *words])


def take_two(mode: Mode, directory: Path) -> Two:
    """Snapshot a program twice, with other data of its own, and put both into a store."""
    store = directory / "store"
    snapshots = []
    for name in ("one", "two"):
        snapshot = take_mapped(mode, directory, READER, name)
        moved = snapshot._replace(path=directory / name)
        snapshot.path.rename(moved.path)
        done = command(mode, "optimize", "--store", store, moved.path)
        assert done.returncode == 0, done.stderr
        assert ("0 B were already there" in done.stdout) == (name == "one")
        snapshots.append(moved)
    return snapshots[0], snapshots[1], store


@pytest.fixture(scope="module", params=CRIU_MODES)
def taken(request: pytest.FixtureRequest, mode_named: Callable[[str], Mode]) -> Iterator[Two]:
    """Yield two snapshots that share a store, in each mode."""
    mode = mode_named(request.param)
    directory = mode.account.directory()
    yield take_two(mode, directory)
    shutil.rmtree(directory)


@pytest.fixture
def two(taken: Two, directory_of: Directories) -> Two:
    """Return a copy of them in a directory that holds nothing else; what was linked is linked there."""
    store = taken[2]
    directory = directory_of(taken[0].mode.account)
    subprocess.run(["/bin/cp", "-a", f"{store.parent}/.", directory], check=True)
    one, other = (snapshot._replace(path=directory / snapshot.path.name) for snapshot in taken[:2])
    return one, other, directory / store.name


@by_criu
def test_two_snapshots_share_a_block(mode: Mode, directory_of: Directories) -> None:
    """The block is on disk once and in memory once for copies of both; what differs is each snapshot's own."""
    one, two, store = take_two(mode, directory_of(mode.account))
    blocks = [name for name in os.listdir(store) if not name.startswith(".")]
    assert {(snapshot.path / "memory" / blocks[0]).stat().st_ino for snapshot in (one, two)} == {
        (store / blocks[0]).stat().st_ino
    }
    assert (store / blocks[0]).stat().st_mode & 0o777 == 0o400
    assert store.stat().st_mode & 0o777 == 0o700
    seen = json.loads(one.call(SHARING, two.path).stdout)
    assert seen["said"] == [f"oneo {MEGABYTES << 12}\n", f"twoo {MEGABYTES << 12}\n", "True\n", "True\n"]
    for mapping in seen["maps"]:
        assert mapping["inode"] in {(store / name).stat().st_ino for name in blocks}
        assert mapping["Rss:"] > (MEGABYTES << 10) * 0.9
        assert mapping["Pss:"] < mapping["Rss:"] * 0.6
    assert one.run(input="\n").stdout.endswith("True\n")


def test_a_snapshot_is_whole_without_its_store(two: Two) -> None:
    """Moved, copied, and without the store it restores and is what its manifest says."""
    one, _, store = two
    shutil.rmtree(store)
    moved = one._replace(path=one.path.with_name("moved"))
    one.path.rename(moved.path)
    assert moved.run(input="\n").stdout == f"oneo {MEGABYTES << 12}\nTrue\n"
    assert command(one.mode, "inspect", "--verify", moved.path).returncode == 0


def test_prune_removes_what_no_snapshot_has(two: Two) -> None:
    """A block stays as long as one snapshot has it."""
    one, other, store = two
    mode = one.mode
    listed = command(mode, "store", "list", store).stdout
    assert "in 2 snapshots" in listed
    blocks = json.loads(command(mode, "store", "list", "--json", store).stdout)
    assert [block["snapshots"] for block in blocks] == [2] * len(listed.splitlines())
    shutil.rmtree(one.path)
    command(mode, "store", "prune", store)
    assert "in 1 snapshot\n" in command(mode, "store", "list", store).stdout
    assert other.run(input="\n").stdout.endswith("True\n")
    shutil.rmtree(other.path)
    done = command(mode, "store", "prune", "--json", store)
    assert [block["name"] for block in json.loads(done.stdout)] == [block["name"] for block in blocks]
    assert command(mode, "store", "prune", store).stdout.startswith("removed: 0 blocks")
    assert sorted(os.listdir(store)) == [".libcriu_py-store", ".lock"]


def test_another_block_is_refused(two: Two) -> None:
    """A snapshot with a block of another size is not restored."""
    one, _, _ = two
    (block,) = (part.file for part in record_of(one).memory_files[1:] if part.size > MEGABYTES << 19)
    file = one.path / block
    file.chmod(0o600)
    os.truncate(file, 4096)
    done = one.run(input="\n")
    assert done.returncode in {125, 126}
    assert "make the snapshot anew" in done.stderr


def test_what_cannot_be_shared_stays(two: Two) -> None:
    """A store that others can write, a damaged block in it and a second time are refused; the snapshot stays."""
    one, _, store = two
    mode, directory = one.mode, store.parent
    done = command(mode, "optimize", "--store", store, one.path)
    assert done.returncode == 1
    assert "in a store already" in done.stderr
    snapshot = take_mapped(mode, directory, READER, "new")
    before = (snapshot.path / "manifest.json").read_bytes()
    store.chmod(0o722)
    assert "can be written by others" in command(mode, "optimize", "--store", store, snapshot.path).stderr
    store.chmod(0o700)
    for name in os.listdir(store):
        (store / name).chmod(0o600)
        with (store / name).open("r+b") as file:
            file.write(b"!")
    assert "is damaged" in command(mode, "optimize", "--store", store, snapshot.path).stderr
    assert (snapshot.path / "manifest.json").read_bytes() == before
    assert sorted(os.listdir(directory)) == ["one", "program.py", "snap-auto", "store", "two"]


@by_criu
def test_learned_pages_of_shared_blocks(mode: Mode, directory_of: Directories) -> None:
    """Blocks in a store are seen to be written to as other memory is."""
    code = """
    import resource, sys
    from libcriu_py import checkpoint
    data = bytearray(range(256)) * (8 << 12)
    with checkpoint():
        pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for at in range(0, 8 << 20, 4096):
        data[at] += 1
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, data.count(1), flush=True)
    """
    directory = directory_of(mode.account)
    snapshot = take_mapped(mode, directory, code)
    done = command(mode, "optimize", "--store", directory / "store", "--learn-pages", "", snapshot.path)
    assert done.returncode == 0, done.stderr
    faults, ones = map(int, snapshot.run().stdout.split())
    assert faults < 200
    assert ones == (8 << 12) + (8 << 8)


@by_criu
def test_a_wrong_division_is_noticed(mode: Mode, directory_of: Directories) -> None:
    """The check reads what was written: one byte that differs, in a block or in the rest, and nothing is published."""
    snapshot = take_mapped(mode, directory_of(mode.account), READER, "one")
    done = snapshot.call(
        """
        import os, shutil, sys
        from libcriu_py.errors import ImageError
        from libcriu_py.memory.division import Division
        from libcriu_py.snapshot.manifest import Snapshot
        snapshot = Snapshot.open(sys.argv[1])
        for victim in ("", "block", "rest"):
            scratch = sys.argv[1] + "-scratch"
            os.mkdir(scratch)
            division = Division(snapshot, scratch)
            paths = division.write_memory()
            keys = [path[1:] for path in paths]
            division.write_images(keys)
            rest = os.path.join(scratch, "memory.img")
            if victim:
                path = paths[0] if victim == "block" else rest
                os.chmod(path, 0o600)
                with open(path, "r+b") as file:
                    content = file.read()
                    at = next(place for place in range(len(content) - 1, 0, -1) if content[place])
                    file.seek(at)
                    file.write(bytes([content[at] ^ 1]))
            try:
                division.check({snapshot.memory_key: rest, **dict(zip(keys, paths))})
                print("same")
            except ImageError as error:
                print("differs" if "the memory at 0x" in str(error) else error)
            shutil.rmtree(scratch)
        """
    )
    assert done.stdout == "same\ndiffers\ndiffers\n"
