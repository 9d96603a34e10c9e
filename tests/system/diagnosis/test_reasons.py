"""Reasons of the doctor that are rare: each is provoked here, as the frequent ones are in test_doctor.py."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from libcriu_py.diagnosis import modes
from libcriu_py.linux.capabilities import CAP_SETPCAP
from libcriu_py.privilege.mode import Privilege
from tests.system.accounts import run_as
from tests.system.diagnoses import command, examine, obstacle, report, under
from tests.system.privileges import capable_criu, run_with

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.accounts import Account

    Directories = Callable[[Account], Path]

STAND_IN = """\
#!{python} -IS
import os, socket, sys, time
if sys.argv[1] != "swrk":
    sys.exit(0)
server = socket.socket(fileno=int(sys.argv[2]))
VERSION = 10  # of criu_req_type, images/rpc.proto; each request begins with its type
if server.recv(4096)[1] == VERSION:
    server.send(bytes([8, VERSION, 16, 1, 82, 4, 8, {major}, 16, {minor}]))
    sys.exit(0)
{otherwise}
"""
"""A program that gives its version as criu does, and is none."""


def stand_in(account: Account, directory: Path, *, version: tuple[int, int] = (4, 2), otherwise: str = "") -> Path:
    """
    Write a program that says that it is a criu.

    Args:
        account: Whose interpreter runs it.
        directory: Where it is put.
        version: Its version.
        otherwise: What it does when it is asked for anything else.
    """
    path = directory / "criu"
    major, minor = version
    path.write_text(
        STAND_IN.format(python=account.python, major=major, minor=minor, otherwise=otherwise), encoding="utf-8"
    )
    path.chmod(0o755)
    return path


# ---- criu, and the trial ---------------------------------------------------


def test_a_criu_that_is_too_old_is_named(account: Account, directory_of: Directories) -> None:
    """Its version is what it answers."""
    old = stand_in(account, directory_of(account), version=(3, 17))
    told = report(run_as(account, command(account, "--json"), env={"LIBCRIU_PY_CRIU": str(old)}))
    for mode in ("root", "capability", "rootless"):
        assert f"{old} is version 3.17.0, but 3.18 or newer is required" in obstacle(told, mode)["text"]
        assert "criu" in obstacle(told, mode)["command"]


def test_a_trial_that_fails_is_told_with_its_reason(account: Account, directory_of: Directories) -> None:
    """Nothing known is in the way, and criu ends when it is asked for a dump."""
    broken = stand_in(account, directory_of(account), otherwise="sys.exit(3)")
    check = command(account, "--json", "--mode", "rootless")
    told = report(run_as(account, check, env={"LIBCRIU_PY_CRIU": str(broken)}))
    assert "the trial failed: " in obstacle(told, "rootless")["text"]
    assert "did not answer the request to dump" in obstacle(told, "rootless")["text"]
    assert "read DIR/dump.log" in obstacle(told, "rootless")["command"]


@pytest.mark.parametrize("mode", ["root", "rootless"] if os.geteuid() == 0 else ["rootless"])
def test_a_trial_without_an_end_is_given_up(
    own_account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """After a time, and nothing of it stays."""
    hanging = stand_in(own_account, tmp_path, otherwise="time.sleep(1000)")
    monkeypatch.setenv("LIBCRIU_PY_CRIU", str(hanging))
    monkeypatch.setattr(modes, "_PATIENCE", 3)
    found = modes.try_mode(Privilege.of(mode)).obstacle
    assert found is not None
    assert "did not end within 3 seconds" in found.text


def test_a_trial_that_does_not_come_to_an_answer_is_told(account: Account, directory_of: Directories) -> None:
    """With the last line of what it said."""
    directory = directory_of(account)
    code = "import sys\nif 'libcriu_py.diagnosis.trial' in ' '.join(sys.orig_argv):\n    sys.exit('no such luck')\n"
    (directory / "sitecustomize.py").write_text(code, encoding="utf-8")
    account.give(directory / "sitecustomize.py")
    check = command(account, "--json", "--mode", "rootless")
    told = report(run_as(account, check, env={"PYTHONPATH": str(directory)}))
    text = obstacle(told, "rootless")["text"]
    assert "the trial failed: its process ended with status 1: " in text
    assert text.endswith("no such luck")


# ---- capabilities ----------------------------------------------------------


def test_a_root_without_setpcap_is_named(own_account: Account) -> None:
    """A container that has the one capability, and whose bounding set cannot be made again."""
    found = obstacle(examine(own_account, capabilities=["checkpoint_restore"]), "root")
    assert found["text"].startswith("root has no cap_setpcap here")
    assert found["command"] == "docker run --cap-add SETPCAP ..."


def test_a_root_that_has_given_up_its_capabilities_is_named(own_account: Account) -> None:
    """They are in its bounding set only."""
    limit = ["/usr/bin/setpriv", "--securebits", "+noroot", "--inh-caps", "-all"]
    found = obstacle(report(run_as(own_account, [*limit, *command(own_account, "--json", "--mode", "root")])), "root")
    assert "this root has given up CAP_CHECKPOINT_RESTORE and CAP_SYS_ADMIN" in found["text"]
    assert found["command"].startswith("setpriv ")


def test_a_criu_whose_file_capabilities_are_too_few_for_a_namespace_is_named(account: Account) -> None:
    """They take the place of the ambient ones."""
    with capable_criu(account, mask=1 << CAP_SETPCAP) as criu:
        check = command(account, "--json", "--mode", "rootless")
        told = report(run_as(account, check, env={"LIBCRIU_PY_CRIU": str(criu)}))
    assert f"{criu} carries file capabilities, and not cap_checkpoint_restore" in obstacle(told, "rootless")["text"]
    assert "setcap cap_checkpoint_restore" in obstacle(told, "rootless")["command"]


# ---- namespaces, containers ------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), [("pid", "pid"), ("mnt", "mount")])
def test_a_limit_on_another_namespace_is_named(own_account: Account, kind: str, name: str) -> None:
    """All three are needed."""
    script = f"unshare --user --map-root-user sh -ec 'echo 0 > /proc/sys/user/max_{kind}_namespaces; exec $DOCTOR'"
    told = under(own_account, script, as_root=True)
    assert f"the number of {name} namespaces is limited to 0" in obstacle(told, "rootless")["text"]
    assert obstacle(told, "rootless")["command"] == f"sysctl -w user.max_{kind}_namespaces=15000"


def test_a_failure_without_a_known_cause_is_told_as_the_kernel_does(own_account: Account) -> None:
    """Here as many namespaces as are allowed are there already."""
    script = (
        "unshare --user --map-root-user sh -ec 'echo 1 > /proc/sys/user/max_user_namespaces; "
        'unshare --user --map-root-user sleep 1000 & trap "kill $!" EXIT; '
        "while [ $(readlink /proc/$!/ns/user) = $(readlink /proc/self/ns/user) ]; do :; done; $DOCTOR || :'"
    )
    told = under(own_account, script, as_root=True)
    assert "fails with No space left on device" in obstacle(told, "rootless")["text"]
    assert obstacle(told, "rootless")["command"].startswith("sysctl user.max_user_namespaces ")


def test_who_starts_a_container_is_asked_where_there_is_one(account: Account) -> None:
    """Kubernetes says that there is, by a variable."""
    inside = obstacle(examine(account, seccomp="docker", env={"KUBERNETES_SERVICE_HOST": "10.0.0.1"}), "rootless")
    assert inside["who"] == "whoever starts the container"
    assert "docker run --security-opt seccomp=unconfined" in inside["command"]
    if Path("/.dockerenv").exists():
        return  # the machine of the tests is in one itself
    service = obstacle(examine(account, seccomp="docker"), "rootless")
    assert service["who"] == "whoever started this process"
    assert "SystemCallFilter=" in service["command"]


# ---- notes -----------------------------------------------------------------


def test_no_new_privs_and_few_files_are_noted(account: Account) -> None:
    """Neither stops a mode."""
    check: list[str] = ["/usr/bin/prlimit", "--nofile=100:", *command(account, "--json", "--mode", "rootless")]
    told = report(run_with(account, check, no_new_privs=True))
    assert told["modes"]["rootless"]["works"]
    texts = [note["text"] for note in told["notes"]]
    assert any(text.startswith("NO_NEW_PRIVS is set") for text in texts)
    assert "a process may have only 100 files open at once" in texts


# ---- fix -------------------------------------------------------------------


def unseen(account: Account, directory: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script of root's where nobody else sees what it does to /usr/local/lib and /etc."""
    covers = (
        f"cd {directory}; mount -t tmpfs -o mode=755 tmpfs .; cd {directory}; mkdir etc lib shm; cp -a /etc/. etc; "
        "mount --bind etc /etc; mount --bind lib /usr/local/lib; "
    )
    return subprocess.run(
        ["/usr/bin/unshare", "--mount", "/bin/sh", "-ec", covers + script],
        env=account.environment(PATH="/usr/sbin:/usr/bin:/sbin:/bin"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_fix_installs_a_capable_criu(own_account: Account, tmp_path: Path) -> None:
    """For a group, 0750, and with the reason."""
    doctor = shlex.join(command(own_account, "--fix", "--yes", "--json", "--mode", "capability"))
    done = unseen(own_account, tmp_path, f"{doctor}; stat -c '%a %U:%G' /usr/local/lib/libcriu_py/criu >&2")
    told: dict[str, Any] = report(done)
    assert told["modes"]["capability"]["works"], done.stderr
    assert "Members of criu can then give these capabilities to any of their processes." in done.stderr
    assert "750 root:criu" in done.stderr


def test_setup_mounts_a_tmpfs_where_there_is_none(
    own_account: Account, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also at each boot; undoing it leaves what was there."""
    shm = tmp_path_factory.mktemp("shm")
    setup = shlex.join([str(own_account.python), "-m", "libcriu_py", "setup", "--yes"])
    done = unseen(
        own_account,
        tmp_path,
        f"mount --bind {shm} /dev/shm; cp /etc/fstab before; {setup}; stat -f -c %T /dev/shm; "
        f"diff before /etc/fstab || :; {setup} --undo; cmp before /etc/fstab; stat -f -c %T /dev/shm",
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "mount a tmpfs on /dev/shm, now and at each boot (/etc/fstab)" in done.stdout
    assert "\ntmpfs\n" in done.stdout
    assert "> tmpfs /dev/shm tmpfs mode=1777,nosuid,nodev 0 0" in done.stdout
    before, _, after = done.stdout.partition("unmounted /dev/shm\n")
    assert before
    assert "tmpfs" not in after
