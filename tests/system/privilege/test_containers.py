"""What container engines do to a process, each made for real: it works, or is diagnosed before criu is started."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.system import containers, pairs
from tests.system.privileges import write_program

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.system.accounts import Account

RESTORE = (*containers.DEFAULT, "checkpoint_restore")
TRACE = (*RESTORE, "sys_ptrace")


class Built(NamedTuple):
    """
    A snapshot that was made when an image was built.

    Attributes:
        account: Who made it.
        path: Where it is.
        env: What forces the mode it was made in.
    """

    account: Account
    path: Path
    env: dict[str, str]

    def run(self, *arguments: str, **limits: Any) -> subprocess.CompletedProcess[str]:
        """Start a container with it."""
        argv = [self.account.python, "-c", pairs.RESTORE, self.path, *arguments]
        return containers.run([*map(str, argv)], account=self.account, env=self.env, **limits)

    def run_native(self, *arguments: str, **limits: Any) -> subprocess.CompletedProcess[str]:
        """Start a container with it by the launcher itself."""
        argv = [self.account.native_launcher, "--no-fallback", str(self.path), "--", *arguments]
        return containers.run(argv, account=self.account, env=self.env, **limits)


def build(account: Account, mode: str, **limits: Any) -> Built:
    """Make a snapshot in a container, as a build would."""
    # Beside the tests' temporary directory, where what outlives a test would count as left behind.
    own = Path(tempfile.gettempdir()).parent
    directory = Path(tempfile.mkdtemp(prefix="image-", dir=own if account.is_self else account.home))
    account.give(directory)
    built = Built(account, directory / "snapshot", {"LIBCRIU_PY_MODE": mode})
    program = write_program(account, directory)
    argv = [account.python, "-m", "libcriu_py", "snapshot", "-o", built.path, program, built.path]
    made = containers.run([*map(str, argv)], account=account, env=built.env, hostname="build", **limits)
    assert made.returncode == 0, made.stderr
    return built


@pytest.fixture(scope="module")
def of_root(own_account: Account) -> Iterator[Built]:
    """Yield a snapshot of root's, built with --cap-add CHECKPOINT_RESTORE and without a seccomp filter."""
    built = build(own_account, "root", capabilities=RESTORE, masked=True)
    yield built
    shutil.rmtree(built.path.parent)


@pytest.fixture(scope="module")
def of_account(account: Account) -> Iterator[Built]:
    """Yield a snapshot of an account without rights, built with neither filter nor covered /proc."""
    built = build(account, "rootless")
    yield built
    shutil.rmtree(built.path.parent)


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    """Read what the restored program told."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- root ------------------------------------------------------------------

ROOT_WORKS = {
    "no filter": {"capabilities": RESTORE},
    "covered /proc": {"capabilities": RESTORE, "masked": True},
    "Docker's filter, /proc/sys writable": {"capabilities": RESTORE, "seccomp": "docker"},
    "Docker's filter and clone3": {"capabilities": RESTORE, "seccomp": "docker+clone3", "masked": True},
    "Podman's filter and SYS_PTRACE": {"capabilities": TRACE, "seccomp": "podman", "masked": True},
    "all capabilities": {"capabilities": None},
    "no new privileges": {"capabilities": RESTORE, "no_new_privs": True},
    "pid 1": {"capabilities": RESTORE, "masked": True, "pid_1": True},
    "many pids used": {"capabilities": RESTORE, "masked": True, "busy_pids": 300},
}


@pytest.mark.parametrize("limits", ROOT_WORKS.values(), ids=ROOT_WORKS)
def test_roots_snapshot_starts_in_a_container(of_root: Built, limits: dict[str, Any]) -> None:
    """Built under another host name, with low pids taken by others, it starts with the least that is needed."""
    for run in (of_root.run, of_root.run_native):
        told = answer(run("x", "y", **limits))
        assert told["argv"] == ["x", "y"]
        assert told["pid"] >= 1000, "a low pid would be taken in the next container"


def test_two_capabilities_and_the_rest_dropped_are_enough(own_account: Account) -> None:
    """The securityContext for Kubernetes: drop ALL, add CHECKPOINT_RESTORE and SETPCAP, no privilege escalation."""
    few = ("checkpoint_restore", "setpcap")
    built = build(own_account, "root", capabilities=few, masked=True)
    try:
        for run in (built.run, built.run_native):
            told = answer(run("x", capabilities=few, masked=True, seccomp="docker+clone3", no_new_privs=True))
            assert told["argv"] == ["x"]
            assert int(told["effective"], 16) == 1 << 40 | 1 << 8
    finally:
        shutil.rmtree(built.path.parent)


@pytest.fixture
def layers(own_account: Account) -> Iterator[list[Path]]:
    """Two empty layers for overlay file systems."""
    made = [Path(tempfile.mkdtemp(prefix="lcp-layer-", dir="/dev/shm")) for _ in range(2)]
    for layer in made:
        layer.chmod(0o755)
    yield made
    for layer in made:
        shutil.rmtree(layer)


@pytest.mark.parametrize("mode", ["root", "rootless"])
def test_an_image_is_built_on_an_overlay_and_started_from_its_layers(
    account: Account, own_account: Account, layers: list[Path], mode: str
) -> None:
    """Where the snapshot is in a layer of its own; each container has another root, with other and more mounts."""
    upper, image = layers
    limits: dict[str, Any] = {"capabilities": RESTORE, "masked": True} if mode == "root" else {}
    built = build(own_account if mode == "root" else account, mode, layers=[image], **limits)
    try:
        assert not built.path.exists(), "it was made outside of the layer"
        for run in (built.run, built.run_native):
            told = answer(run("x", layers=[upper, image], other_mounts=True, busy_pids=50, **limits))
            assert told["argv"] == ["x"]
    finally:
        shutil.rmtree(built.path.parent)


def test_an_overlay_on_which_files_have_two_devices_is_named(account: Account, layers: list[Path]) -> None:
    """Its layers are on several file systems, and a rootless criu does not find out which file is mapped."""
    argv = [account.python, "-m", "libcriu_py", "snapshot", "-o", account.home / "never", "-m", "this"]
    done = containers.run(
        [*map(str, argv)], account=account, env={"LIBCRIU_PY_MODE": "rootless"}, layers=layers[:1], overlay="xino=off"
    )
    assert done.returncode != 0
    assert "mount the overlay with xino=on" in done.stderr
    assert "criu refused" not in done.stderr


ROOT_STOPPED = {
    "default capabilities": ({}, "--cap-add CHECKPOINT_RESTORE"),
    "Docker's filter": ({"capabilities": RESTORE, "seccomp": "docker", "masked": True}, "ns_last_pid"),
    "Podman's filter": ({"capabilities": RESTORE, "seccomp": "podman", "masked": True}, "ptrace"),
    "no SETPCAP": ({"capabilities": [name for name in RESTORE if name != "setpcap"]}, "the program had cap_setpcap"),
}


@pytest.mark.parametrize(("limits", "reason"), ROOT_STOPPED.values(), ids=ROOT_STOPPED)
def test_roots_container_that_lacks_something_says_what(of_root: Built, limits: dict[str, Any], reason: str) -> None:
    """Whatever is missing is named."""
    done = of_root.run(**limits)
    assert done.returncode in {125, 126}, done.stdout
    assert reason in done.stderr


# ---- an account ------------------------------------------------------------

ACCOUNT_WORKS = {
    "default capabilities": {},
    "no capabilities": {"capabilities": ()},
    "no new privileges": {"no_new_privs": True},
    "pid 1": {"pid_1": True},
    "many pids used": {"busy_pids": 300},
    "Podman's filter and SYS_PTRACE": {"seccomp": "podman", "capabilities": TRACE},
}


@pytest.mark.parametrize("limits", ACCOUNT_WORKS.values(), ids=ACCOUNT_WORKS)
def test_an_accounts_snapshot_starts_in_a_container(of_account: Built, limits: dict[str, Any]) -> None:
    """No capability is needed, only that namespaces may be made and /proc is not covered."""
    for run in (of_account.run, of_account.run_native):
        told = answer(run("x", **limits))
        assert told["argv"] == ["x"]
        assert told["uid"] == of_account.account.uid


ACCOUNT_STOPPED = {
    "covered /proc": ({"masked": True}, "--security-opt systempaths=unconfined"),
    "Docker's filter": ({"seccomp": "docker"}, "--security-opt seccomp=unconfined"),
    "Podman's filter": ({"seccomp": "podman"}, "ptrace"),
}


@pytest.mark.parametrize(("limits", "reason"), ACCOUNT_STOPPED.values(), ids=ACCOUNT_STOPPED)
def test_an_accounts_container_that_lacks_something_says_what(
    of_account: Built, limits: dict[str, Any], reason: str
) -> None:
    """Whatever is missing is named."""
    done = of_account.run(**limits)
    assert done.returncode in {125, 126}, done.stdout
    assert reason in done.stderr


# ---- both ------------------------------------------------------------------


@pytest.mark.parametrize("who", ["of_root", "of_account"])
def test_neither_run_nor_dev_shm_need_be_a_tmpfs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, who: str
) -> None:
    """Without any tmpfs a restore is slower, and works."""
    built: Built = request.getfixturevalue(who)
    instead = {}
    for place in ("/run", "/dev/shm"):
        instead[place] = tmp_path_factory.mktemp("instead")
        instead[place].chmod(0o1777)
    limits: dict[str, Any] = {"capabilities": RESTORE} if who == "of_root" else {}
    assert answer(built.run("x", instead=instead, **limits))["argv"] == ["x"]


@pytest.mark.parametrize("who", ["of_root", "of_account"])
def test_a_program_that_cannot_be_restored_starts_conventionally(request: pytest.FixtureRequest, who: str) -> None:
    """Under Docker's defaults there is one line that says why, and the program."""
    built: Built = request.getfixturevalue(who)
    marker = "conventional"
    argv = [built.account.python, "-m", "libcriu_py", "run", built.path, "--", marker]
    done = containers.run([*map(str, argv)], account=built.account, seccomp="docker", masked=True)
    assert "starting conventionally: " in done.stderr
    # The program makes its checkpoint itself, and goes on there: conventionally there is nothing to be saved.
    assert "UnsupportedFeature" not in done.stderr


def test_a_dump_under_a_filter_is_refused_before_criu_is_started(account: Account) -> None:
    """The kernel lets nobody in a filtered container suspend the filter."""
    argv = [
        account.python,
        "-m",
        "libcriu_py",
        "snapshot",
        "--engine",
        "criu",
        "-o",
        account.home / "never",
        "-m",
        "this",
    ]
    done = containers.run([*map(str, argv)], account=account, seccomp="podman", capabilities=TRACE)
    assert done.returncode != 0
    assert "under a seccomp filter" in done.stderr
    assert "criu refused" not in done.stderr


_SESSION = """
import json, os, sys
from libcriu_py import checkpoint
if sys.argv[2] == "leader":
    os.setpgid(0, 0)
before = os.getsid(0)
with checkpoint(sys.argv[1], engine="criu"):
    pass
print(json.dumps([before, os.getsid(0) != 0, sys.argv[1:]]))
"""


@pytest.mark.parametrize("place", ["member", "leader"])
def test_a_session_from_outside_is_left_for_a_dump(own_account: Account, tmp_path: Path, place: str) -> None:
    """
    As nsenter and some CI systems start programs: the session has no number here, and criu would dump no member of it.

    A leader of a process group has to leave that first.
    """
    script, snapshot = tmp_path / "program.py", tmp_path / "snapshot"
    script.write_text(_SESSION, encoding="utf-8")
    limits: dict[str, Any] = {"capabilities": RESTORE, "own_session": False, "env": {"LIBCRIU_PY_MODE": "root"}}
    argv = [own_account.python, script, snapshot, place]
    done = containers.run([*map(str, argv)], account=own_account, **limits)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(f"libcriu-py: took a snapshot of this program, {snapshot} .*\n", done.stderr)
    argv = [own_account.python, "-m", "libcriu_py", "run", "--no-fallback", snapshot, "--", "x"]
    done = containers.run([*map(str, argv)], account=own_account, **limits)
    assert answer(done) == [0, True, ["x"]]


def test_a_command_starts_programs_in_a_session_that_can_be_dumped(own_account: Account, tmp_path: Path) -> None:
    """What `snapshot` makes ready is a member of a session, and so of whichever it is restored in."""
    limits: dict[str, Any] = {"capabilities": RESTORE, "own_session": False, "env": {"LIBCRIU_PY_MODE": "root"}}
    command, snapshot = [own_account.python, "-m", "libcriu_py"], tmp_path / "snapshot"
    script = tmp_path / "program.py"
    code = "import json, os\nprint(json.dumps([os.getsid(0), os.getpid() == os.getpgrp()]))"
    script.write_text(code, encoding="utf-8")
    done = containers.run([*map(str, [*command, "snapshot", "-o", snapshot, script])], account=own_account, **limits)
    assert done.returncode == 0, done.stderr
    done = containers.run([*map(str, [*command, "run", "--no-fallback", snapshot])], account=own_account, **limits)
    assert answer(done) == [0, False]
