"""The doctor: each of its findings is provoked."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system import containers
from tests.system.accounts import obstruct, run_as
from tests.system.diagnoses import command, examine, obstacle, report, under
from tests.system.privileges import capable_criu, run_with

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.accounts import Account

RESTORE = (*containers.DEFAULT, "checkpoint_restore")


# ---- what works ------------------------------------------------------------


def test_an_ordinary_account_may_go_rootless(account: Account) -> None:
    """A process was really dumped and restored; for the others the first thing in the way is named."""
    done = run_as(account, command(account, "--json"))
    assert done.returncode == 0
    told = report(done)
    rootless = told["modes"]["rootless"]
    assert rootless["works"]
    assert rootless["restore"] > 0
    assert obstacle(told, "root")["text"] == "this process is not root"
    assert obstacle(told, "capability")["command"].endswith(f"setup --user {account.name}")
    assert obstacle(told, "capability")["who"] == "root"


def test_root_may_use_two_modes(own_account: Account) -> None:
    """Root itself, and a namespace."""
    told = report(run_as(own_account, command(own_account, "--json")))
    assert told["modes"]["root"]["works"]
    assert told["modes"]["rootless"]["works"]


def test_what_is_in_the_working_directory_is_not_imported(
    own_account: Account, directory_of: Callable[[Account], Path]
) -> None:
    """A types.py, or a source tree of this package without its C extension."""
    place = directory_of(own_account)
    obstruct(own_account, place)
    # Isolated itself: what is started for the trials is in question, and is not.
    doctor = [own_account.python, "-I", "-m", "libcriu_py", "doctor", "--json"]
    modes = report(run_as(own_account, doctor, cwd=place))["modes"]
    assert modes["rootless"]["works"], modes
    assert modes["root"]["works"] == (os.geteuid() == 0), modes


def test_a_capable_criu_makes_the_third_mode_work(account: Account) -> None:
    """And only for the group that it was installed for."""
    with capable_criu(account) as criu:
        done = run_as(account, command(account, "--mode", "capability", "--json"), env={"LIBCRIU_PY_CRIU": str(criu)})
    assert done.returncode == 0, done.stdout
    assert report(done)["modes"]["capability"]["works"]


def test_the_exit_status_is_that_of_the_mode_asked_for(account: Account) -> None:
    """Scripts can ask for the mode they need."""
    assert run_as(account, command(account, "--mode", "rootless")).returncode == 0
    assert run_as(account, command(account, "--mode", "root")).returncode == 1
    assert run_as(account, command(account, "--mode", "root", "--mode", "rootless")).returncode == 1
    assert run_as(account, command(account, "--mode", "other")).returncode == 2


def test_people_get_the_commands_in_whole_lines(account: Account) -> None:
    """Nothing is wrapped in a pipe, so that a command can be copied."""
    done = run_as(account, command(account))
    assert "rootless    works" in done.stdout
    assert done.stdout.endswith("\nnext        libcriu-py snapshot PROGRAM\n")
    assert f"root: {account.python}" in done.stdout
    assert f"setup --user {account.name}\n" in done.stdout


def test_the_facts_are_those_of_the_kernel(account: Account) -> None:
    """Read back from where the doctor read them."""
    facts = report(run_with(account, command(account, "--json"), without=["sys_time"]))["facts"]
    assert "cap_sys_time" in facts["process"]["missing_from_bounding"]
    assert facts["process"]["uid"] == account.uid
    assert facts["process"]["effective"] == ""
    assert facts["criu"]["path"] == str(account.criu)
    assert facts["kernel"]["checkpoint_restore"]
    assert set(facts["kernel"]["system_calls"].values()) == {"ok"}
    assert facts["namespaces"]["max_user_namespaces"].isdigit()
    assert facts["limits"]["nofile"][0] > 0


# ---- criu ------------------------------------------------------------------


def test_a_missing_criu_is_named(account: Account) -> None:
    """With the program that installs one."""
    told = report(run_as(account, command(account, "--json"), env={"LIBCRIU_PY_CRIU": "/nonexistent/criu"}))
    for mode in ("root", "capability", "rootless"):
        assert "/nonexistent/criu is not an executable file" in obstacle(told, mode)["text"]
        assert "criu" in obstacle(told, mode)["command"]


def test_a_program_that_is_no_criu_is_named(account: Account) -> None:
    """It runs and does not answer."""
    told = report(run_as(account, command(account, "--json"), env={"LIBCRIU_PY_CRIU": "/bin/false"}))
    assert "/bin/false does not run" in obstacle(told, "rootless")["text"]


# ---- namespaces ------------------------------------------------------------


def test_a_limit_of_no_user_namespaces_is_named(own_account: Account) -> None:
    """The limit holds for what is below the namespace it was set in."""
    script = "unshare --user --map-root-user sh -ec 'echo 0 > /proc/sys/user/max_user_namespaces; exec $DOCTOR'"
    told = under(own_account, script, as_root=True)
    assert obstacle(told, "rootless")["command"] == "sysctl -w user.max_user_namespaces=15000"
    assert told["facts"]["namespaces"]["in_user_namespace"]


def sysctls(directory: Path, *without: str, **settings: str) -> Path:
    """
    Make a directory to be seen instead of /proc/sys/kernel, with what is read there.

    Args:
        directory: Where.
        without: What is missing from it.
        settings: What is there besides; "__" stands for "/".
    """
    directory.chmod(0o755)
    names = {"cap_last_cap", "overflowgid", "overflowuid", "ns_last_pid", "pid_max", "random/boot_id"} - {*without}
    texts = {name: Path("/proc/sys/kernel", name).read_text(encoding="ascii") for name in names}
    for name, text in {**texts, **settings}.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text.strip()}\n", encoding="ascii")
    return directory


@pytest.mark.parametrize(
    ("switch", "bad", "good"),
    [("unprivileged_userns_clone", "0", "1"), ("apparmor_restrict_unprivileged_userns", "1", "0")],
)
def test_a_switch_against_user_namespaces_is_named(
    account: Account, tmp_path_factory: pytest.TempPathFactory, switch: str, bad: str, good: str
) -> None:
    """Here the switch is a file over /proc/sys/kernel, and what fails is that /proc is covered by it."""
    kernel = sysctls(tmp_path_factory.mktemp("kernel"), **{switch: bad})
    told = examine(account, instead={"/proc/sys/kernel": kernel})
    assert obstacle(told, "rootless")["command"] == f"sysctl -w kernel.{switch}={good}"


# ---- the kernel ------------------------------------------------------------


def test_yama_that_forbids_everything_is_named(own_account: Account, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The doctor reads it where Yama has it; here it is a file over /proc/sys/kernel."""
    kernel = sysctls(tmp_path_factory.mktemp("kernel"), yama__ptrace_scope="3")
    told = examine(own_account, capabilities=RESTORE, instead={"/proc/sys/kernel": kernel})
    for mode in ("root", "capability", "rootless"):
        assert "until the next boot" in obstacle(told, mode)["text"]
        assert "ptrace_scope" in obstacle(told, mode)["command"]
    assert told["facts"]["security"]["yama"] == "3"


def test_yama_that_asks_for_a_capability_is_named(
    account: Account, capability_criu: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The criu that was installed without Yama lacks it, and the command adds it."""
    kernel = sysctls(tmp_path_factory.mktemp("kernel"), yama__ptrace_scope="2")
    told = examine(
        account,
        capabilities=None,
        instead={"/proc/sys/kernel": kernel},
        env={"LIBCRIU_PY_CRIU": str(capability_criu)},
    )
    assert "since kernel.yama.ptrace_scope is 2" in obstacle(told, "capability")["text"]
    assert obstacle(told, "capability")["command"].startswith("setcap cap_")
    assert "cap_sys_ptrace" in obstacle(told, "capability")["command"]


def test_a_kernel_without_support_is_named(own_account: Account, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It has no ns_last_pid."""
    kernel = sysctls(tmp_path_factory.mktemp("kernel"), "ns_last_pid")
    told = examine(own_account, capabilities=RESTORE, instead={"/proc/sys/kernel": kernel})
    for mode in ("root", "capability", "rootless"):
        assert "CONFIG_CHECKPOINT_RESTORE" in obstacle(told, mode)["text"]


def test_selinux_is_told(account: Account, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It is among the facts; what it denies shows in the dump and restore that are tried."""
    place = tmp_path_factory.mktemp("sys")
    (place / "selinux").mkdir()
    (place / "selinux" / "enforce").write_text("1", encoding="ascii")
    place.chmod(0o755)
    told = examine(account, instead={"/sys/fs": place})
    assert told["facts"]["security"]["selinux"] == "enforcing"
    assert told["modes"]["rootless"]["works"]


@pytest.mark.parametrize("other", ["file", "open"])
def test_a_cache_that_is_not_private_is_named(
    account: Account, tmp_path_factory: pytest.TempPathFactory, other: str
) -> None:
    """Somebody else's file in its place, or a directory that others may write to, stops all modes."""
    shm = tmp_path_factory.mktemp("shm")
    shm.chmod(0o1777)
    place = shm / f"libcriu_py-{account.uid}"
    if other == "file":
        place.touch()
    else:
        place.mkdir()
        account.give(place)
        place.chmod(0o777)
    told = examine(account, instead={"/dev/shm": shm})
    for mode in ("root", "capability", "rootless"):
        assert f"only uid {account.uid} may enter" in obstacle(told, mode)["text"]
        assert obstacle(told, mode)["command"] == f"rm -r /dev/shm/libcriu_py-{account.uid}"


# ---- /proc, chroot ---------------------------------------------------------


def test_a_covered_proc_is_named(account: Account) -> None:
    """The kernel mounts no /proc that shows more than the one that is there."""
    told = examine(account, masked=True)
    assert "parts of /proc are covered" in obstacle(told, "rootless")["text"]
    assert "systempaths=unconfined" in obstacle(told, "rootless")["command"]
    assert told["facts"]["proc"]["covered"]
    assert not told["facts"]["proc"]["sys_writable"]


@pytest.mark.parametrize("option", ["hidepid=1", "hidepid=2"])
def test_hidden_processes_do_no_harm(account: Account, option: str) -> None:
    """One's own are enough; the option is among the facts."""
    told = examine(account, proc=option)
    assert told["modes"]["rootless"]["works"]
    assert told["facts"]["proc"]["hidepid"] in {option[-1], "noaccess", "invisible"}


def test_a_proc_of_processes_only_is_named(account: Account) -> None:
    """CRIU needs /proc/sys, and no other /proc can be mounted where this one is not complete."""
    told = examine(account, proc="subset=pid")
    assert "subset=pid" in obstacle(told, "rootless")["text"]


def test_a_chroot_is_named(account: Account, own_account: Account) -> None:
    """In a chroot no user namespace can be made."""
    root = Path(f"/var/lib/{account.name}-chroot")
    root.mkdir(mode=0o755)
    places = ("usr", "proc", "dev", "home", "tmp", "lib", "lib64", "bin", "etc", "sys", "root")
    binds = "; ".join(f"mkdir {root}/{place}; mount --rbind /{place} {root}/{place}" for place in places)
    script = f"exec unshare --mount sh -ec '{binds}; exec chroot {root} $DOCTOR'"
    try:
        told = under(account, script)
    finally:
        for place in places:
            root.joinpath(place).rmdir()
        root.rmdir()
    assert "this is a chroot" in obstacle(told, "rootless")["text"]


# ---- containers ------------------------------------------------------------


def test_root_without_capabilities_is_named(own_account: Account) -> None:
    """With what adds the one that is needed."""
    found = obstacle(examine(own_account), "root")
    assert found["command"] == "docker run --cap-add CHECKPOINT_RESTORE ..."
    assert found["who"] == "whoever starts the container"


@pytest.mark.parametrize("profile", ["docker", "podman"])
def test_a_seccomp_filter_is_named(account: Account, profile: str) -> None:
    """It stops every dump; which calls it refuses is in a note."""
    told = examine(account, seccomp=profile)
    assert "under a seccomp filter" in obstacle(told, "rootless")["text"]
    refused = next(note["text"] for note in told["notes"] if "refuses" in note["text"])
    assert ("clone3 (ENOSYS)" if profile == "docker" else "ptrace (EPERM)") in refused
    assert told["facts"]["process"]["seccomp"] == "filter"


def test_a_session_from_outside_is_no_obstacle(own_account: Account) -> None:
    """CRIU dumps no process whose session began outside of its pid namespace; programs get a session of their own."""
    told = examine(own_account, capabilities=RESTORE, own_session=False)
    assert told["modes"]["root"]["works"]
    assert told["modes"]["rootless"]["works"]


def test_no_tmpfs_is_noted(account: Account, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It only takes time."""
    shm = tmp_path_factory.mktemp("shm")
    shm.chmod(0o1777)
    told = examine(account, instead={"/dev/shm": shm})
    assert told["modes"]["rootless"]["works"]
    assert any("not on a tmpfs" in note["text"] for note in told["notes"])


def test_pid_1_is_noted(account: Account) -> None:
    """What is started from it is not pid 1 itself, and works."""
    told = examine(account, pid_1=True)
    assert told["modes"]["rootless"]["works"]
    assert any("this is pid 1" in note["text"] for note in told["notes"])


# ---- setup and fix ---------------------------------------------------------


def test_setup_installs_for_one_group_and_undo_leaves_nothing(account: Account, own_account: Account) -> None:
    """The copy is 0750 and root's; the group and its member are gone afterwards."""
    group = f"{account.name}-g"
    path = Path(f"/usr/local/lib/{account.name}-setup/criu")
    setup = [own_account.python, "-m", "libcriu_py", "setup", "--path", path]
    asked = json.loads(run_as(own_account, [*setup, "--json"]).stdout)
    assert (asked["target"], path.exists()) == (str(path), False)
    assert "cap_checkpoint_restore" in asked["mask"]
    done = run_as(own_account, [*setup, "--group", group, "--user", account.name, "--yes"])
    try:
        assert done.returncode == 0, done.stderr
        assert f"add {account.name} to the group {group}" in done.stdout
        assert path.stat().st_mode & 0o7777 == 0o750
        assert path.stat().st_uid == 0
        entry = subprocess.run(["/usr/bin/getent", "group", group], check=True, capture_output=True, text=True).stdout
        gid = int(entry.split(":")[2])
        assert entry.strip().endswith(f":{account.name}")
        check = command(account, "--mode", "capability", "--json")
        told = report(run_with(account, check, groups=[gid], env={"LIBCRIU_PY_CRIU": str(path)}))
        assert told["modes"]["capability"]["works"], told["modes"]
        # Through env, since setpriv itself still has root's capabilities when it executes something.
        refused = run_with(account, ["/usr/bin/env", path, "--version"])
        assert refused.returncode != 0, "it is not for everybody"
    finally:
        undone = run_as(own_account, [*setup, "--undo", "--yes"])
    assert f"removed the group {group}" in undone.stdout
    assert not path.parent.exists()
    assert subprocess.run(["/usr/bin/getent", "group", group], check=False, capture_output=True).returncode != 0


def test_setup_asks_and_takes_silence_for_no(own_account: Account) -> None:
    """Without an answer nothing is done, and what would be is shown."""
    path = "/usr/local/lib/libcriu_py-never/criu"
    done = run_as(own_account, [own_account.python, "-m", "libcriu_py", "setup", "--path", path])
    assert done.returncode == 1
    assert f"to {path}, owner root" in done.stdout
    assert "nothing was done" in done.stderr
    assert not Path(path).parent.exists()


def test_setup_is_for_root(account: Account) -> None:
    """Others are told what it would do, and that sudo is needed."""
    done = run_as(account, [account.python, "-m", "libcriu_py", "setup", "--yes"])
    assert done.returncode == 1
    assert "sudo" in done.stderr


def test_setup_for_nobody_is_refused(own_account: Account) -> None:
    """Before anything is changed."""
    done = run_as(own_account, [own_account.python, "-m", "libcriu_py", "setup", "--user", "no-such-user", "--yes"])
    assert done.returncode == 1
    assert "there is no account no-such-user" in done.stderr


def test_fix_runs_the_commands_that_are_for_root(own_account: Account) -> None:
    """The limit on user namespaces is lifted, and the mode works after that."""
    doctor = shlex.join(command(own_account, "--fix", "--yes", "--json", "--mode", "rootless"))
    script = (
        "unshare --user --map-root-user --mount --pid --fork --mount-proc "
        f"sh -ec 'echo 0 > /proc/sys/user/max_user_namespaces; exec {doctor}'"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        env=own_account.environment(PATH="/usr/sbin:/usr/bin:/sbin:/bin"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "sysctl -w user.max_user_namespaces=15000" in done.stderr
    assert report(done)["modes"]["rootless"]["works"], done.stdout[:1500]
