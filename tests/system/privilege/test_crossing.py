"""Snapshots made in one mode and restored in another, by the same and by other users."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.pairs import RESTORE
from tests.system.privileges import capable_criu, run_with, write_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.system.accounts import Account

Answer = dict[str, Any]


class World:
    """
    What the tests of this module have in common: an account, root, and a criu with file capabilities.

    Args:
        account: Who has no rights.
        root: Who has all.
        capable: The criu that the account may use in the capability mode.
    """

    def __init__(self, account: Account, root: Account, capable: Path) -> None:
        self.accounts = {"account": account, "root": root}
        self.capable = capable
        self._places = {name: user.directory() for name, user in self.accounts.items()}
        self._made: dict[tuple[str, str], Path] = {}

    def close(self) -> None:
        """Remove the snapshots."""
        for place in self._places.values():
            shutil.rmtree(place)

    def env(self, mode: str) -> dict[str, str]:
        """Return the variables that force a mode."""
        named = {"LIBCRIU_PY_CRIU": str(self.capable)} if mode == "capability" else {}
        return {"LIBCRIU_PY_MODE": mode, **named}

    def snapshot(self, who: str, mode: str, directory: Path) -> Path:
        """Return a snapshot that was made in a mode; it is the test's own."""
        if (who, mode) not in self._made:
            place = self._places[who] / mode
            place.mkdir()
            self.accounts[who].give(place)
            self._made[who, mode] = self.make(who, mode, place)
        target = directory / "snapshot"
        subprocess.run(["/bin/cp", "-a", self._made[who, mode], target], check=True)
        return target

    def make(self, who: str, mode: str, directory: Path, **rights: Any) -> Path:
        """Make a snapshot in a mode."""
        account = self.accounts[who]
        target = directory / "snapshot"
        argv: list[str | Path] = [
            account.python,
            "-m",
            "libcriu_py",
            "snapshot",
            "-o",
            target,
            write_program(account, directory),
            target,
        ]
        made = run_with(account, argv, env=self.env(mode), **rights)
        assert made.returncode == 0, made.stderr
        return target

    def restore(
        self, who: str, mode: str, snapshot: Path, *args: str, native: bool = False, **rights: Any
    ) -> subprocess.CompletedProcess[str]:
        """Restore a snapshot in a mode, by the function of Python or by the launcher itself."""
        account = self.accounts[who]
        start: list[str | Path] = [account.python, "-c", RESTORE, snapshot]
        if native:
            start = [account.native_launcher, "--no-fallback", snapshot, "--"]
        return run_with(account, [*start, *args], env=self.env(mode), **rights)


@pytest.fixture(scope="module")
def world(account: Account, own_account: Account) -> Iterator[World]:
    """Yield the account, root and the capable criu."""
    with capable_criu(account) as capable:
        made = World(account, own_account, capable)
        yield made
        made.close()


def answer_of(done: subprocess.CompletedProcess[str]) -> Answer:
    """Read what the restored program told."""
    assert done.returncode == 0, done.stderr
    told: Answer = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("native", [False, True], ids=["python", "native"])
@pytest.mark.parametrize("restored_in", ["rootless", "capability"])
@pytest.mark.parametrize("dumped_in", ["rootless", "capability"])
def test_an_accounts_snapshot_restores_in_both_of_its_modes(
    world: World, directory_of: Callable[[Account], Path], dumped_in: str, restored_in: str, *, native: bool
) -> None:
    """Namespace and file capabilities are interchangeable for a user without supplementary groups."""
    account = world.accounts["account"]
    snapshot = world.snapshot("account", dumped_in, directory_of(account))
    told = answer_of(world.restore("account", restored_in, snapshot, "x", native=native))
    assert told["argv"] == ["x"]
    assert (told["uid"], told["gid"]) == (account.uid, account.gid)
    assert int(told["effective"], 16) == 0, "the restored program has capabilities"


@pytest.mark.parametrize("restored_in", ["root", "rootless"])
@pytest.mark.parametrize("dumped_in", ["root", "rootless"])
def test_roots_snapshot_restores_in_both_of_its_modes(
    world: World, directory_of: Callable[[Account], Path], dumped_in: str, restored_in: str
) -> None:
    """For root too a namespace of its own is as good; a program that was dumped there has no capability."""
    snapshot = world.snapshot("root", dumped_in, directory_of(world.accounts["root"]))
    told = answer_of(world.restore("root", restored_in, snapshot, "x"))
    assert told["uid"] == 0
    assert (int(told["effective"], 16) == 0) is (dumped_in == "rootless")


def test_root_with_fewer_capabilities_restores_what_was_dumped_rootless(
    world: World, directory_of: Callable[[Account], Path]
) -> None:
    """As in a container; what root has dumped outside of a namespace is refused with the names."""
    root = world.accounts["root"]
    snapshot = world.snapshot("root", "rootless", directory_of(root))
    told = answer_of(world.restore("root", "root", snapshot, "x", without=["sys_time", "net_admin"]))
    assert told["argv"] == ["x"]
    snapshot = world.snapshot("root", "root", directory_of(root))
    refused = world.restore("root", "root", snapshot, without=["sys_time", "net_admin"])
    assert "the program had cap_net_admin,cap_sys_time" in refused.stderr
    assert "criu refused" not in refused.stderr


@pytest.mark.parametrize("dumped_in", ["rootless", "capability"])
def test_root_restores_an_accounts_snapshot_once_it_owns_it(
    world: World, directory_of: Callable[[Account], Path], tmp_path: Path, dumped_in: str
) -> None:
    """A snapshot of others, or in their directory, is refused; one that root has taken over runs as who it was."""
    account = world.accounts["account"]
    snapshot = world.snapshot("account", dumped_in, directory_of(account))
    refused = world.restore("root", "root", snapshot)
    assert refused.returncode == 126
    assert f"belongs to uid {account.uid}" in refused.stderr
    subprocess.run(["/bin/chown", "-R", "0:0", snapshot], check=True)
    refused = world.restore("root", "root", snapshot)
    assert refused.returncode == 126
    assert "could put another snapshot in the place" in refused.stderr
    moved = tmp_path / "snapshot"
    subprocess.run(["/bin/cp", "-a", snapshot, moved], check=True)
    told = answer_of(world.restore("root", "root", moved, cwd="/"))
    assert (told["uid"], told["gid"]) == (account.uid, account.gid)


@pytest.mark.parametrize("restored_in", ["rootless", "capability"])
def test_roots_snapshot_is_refused_to_others_by_uid(
    world: World, directory_of: Callable[[Account], Path], restored_in: str
) -> None:
    """Even where its files may be read, only root can become root."""
    directory = directory_of(world.accounts["account"])
    os.chown(directory, 0, 0)
    snapshot = world.snapshot("root", "root", directory)
    directory.chmod(0o755)
    for path in [snapshot, *snapshot.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    refused = world.restore("account", restored_in, snapshot)
    assert refused.returncode in {125, 126}
    assert f"ran as uid 0, this is uid {world.accounts['account'].uid}" in refused.stderr
    assert "criu refused" not in refused.stderr


def refusal(world: World, mode: str, snapshot: Path, groups: Sequence[int], **more: Any) -> str:
    """Try a restore that cannot work, and give the reason."""
    done = world.restore("account", mode, snapshot, groups=groups, **more)
    assert done.returncode in {125, 126}, (done.stdout, done.stderr)
    assert "criu refused" not in done.stderr, "criu was asked to do what cannot work"
    return done.stderr


def test_supplementary_groups_are_named_where_they_differ(
    world: World, directory_of: Callable[[Account], Path]
) -> None:
    """With file capabilities the groups are kept, so they must be the same; in a namespace nobody can have them."""
    snapshot = world.make("account", "capability", directory_of(world.accounts["account"]), groups=[100, 4711])
    told = answer_of(world.restore("account", "capability", snapshot, groups=[100, 4711]))
    assert told["groups"] == [100, 4711]
    text = refusal(world, "capability", snapshot, [100])
    assert "supplementary groups 100,4711 (this process has 100 there)" in text
    text = refusal(world, "rootless", snapshot, [100, 4711])
    assert "supplementary groups 100,4711 (this process has 65534,65534 there)" in text
    assert "LIBCRIU_PY_MODE=rootless" in text
    text = refusal(world, "rootless", snapshot, [100, 4711], native=True)
    assert "supplementary groups 100,4711 (this process has 65534,65534 there)" in text


def test_groups_do_not_matter_where_the_image_has_none(world: World, directory_of: Callable[[Account], Path]) -> None:
    """CRIU leaves the groups alone then, and the program has those of its launcher."""
    snapshot = world.snapshot("account", "capability", directory_of(world.accounts["account"]))
    assert answer_of(world.restore("account", "capability", snapshot, groups=[4711]))["groups"] == [4711]


def test_rootless_snapshots_need_as_many_groups(world: World, directory_of: Callable[[Account], Path]) -> None:
    """In a namespace groups have no numbers, but they are counted."""
    snapshot = world.make("account", "rootless", directory_of(world.accounts["account"]), groups=[4711])
    assert answer_of(world.restore("account", "rootless", snapshot, groups=[4712]))["groups"] == [65534]
    assert "supplementary groups 65534 (this process has none there)" in refusal(world, "rootless", snapshot, [])


@pytest.mark.parametrize("mode", ["rootless", "capability"])
def test_another_gid_is_named(world: World, directory_of: Callable[[Account], Path], mode: str) -> None:
    """A newgrp between dump and restore is seen before criu is started."""
    directory = directory_of(world.accounts["account"])
    snapshot = world.snapshot("account", "rootless", directory)
    gid = world.accounts["account"].gid
    directory.chmod(0o755)
    assert f"ran with gid {gid}, this is gid 100" in refusal(world, mode, snapshot, [gid], gid=100)


def test_the_mode_bits_of_a_mapped_file_are_named(world: World, directory_of: Callable[[Account], Path]) -> None:
    """CRIU compares them late and in its own words; a chmod is named before it is started."""
    account = world.accounts["account"]
    directory = directory_of(account)
    data = directory / "data.bin"
    data.write_bytes(b"x" * 4096)
    data.chmod(0o640)
    account.give(data)
    program = directory / "mapped.py"
    program.write_text(
        "import mmap, sys\nfrom libcriu_py import checkpoint\n"
        f"file = open({str(data)!r}, 'rb')\narea = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)\n"
        "with checkpoint(sys.argv[1]):\n    pass\nprint(area[:1])\n",
        encoding="utf-8",
    )
    snapshot = directory / "snapshot"
    argv: list[str | Path] = [account.python, "-m", "libcriu_py", "snapshot", "-o", snapshot, program, snapshot]
    made = run_with(account, argv, env=world.env("rootless"))
    assert made.returncode == 0, made.stderr
    data.chmod(0o600)
    text = refusal(world, "rootless", snapshot, [])
    assert "has mode 0600, and at the dump 0640" in text
    assert f"chmod 0640 {data}" in text
    data.chmod(0o640)
    assert world.restore("account", "rootless", snapshot).stdout == "b'x'\n"
