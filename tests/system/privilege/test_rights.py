"""What the modes need, taken away piece by piece."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from libcriu_py.linux.capabilities import CAP_CHECKPOINT_RESTORE, CAP_SETPCAP, bounding_is_reduced
from libcriu_py.snapshot import record
from tests.system.accounts import popen_as
from tests.system.privileges import capable_criu, run_with, write_program
from tests.system.selfdump import take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

RESTORE = 1 << CAP_CHECKPOINT_RESTORE
SETPCAP = 1 << CAP_SETPCAP


@pytest.fixture(scope="module")
def capable(account: Account) -> Iterator[Path]:
    """Yield a criu with the file capabilities that are needed here."""
    with capable_criu(account) as path:
        yield path


def cycle(account: Account, directory: Path, env: dict[str, str], **rights: Any) -> subprocess.CompletedProcess[str]:
    """Dump and restore with the same rights; the first failure is returned."""
    snapshot = directory / "snapshot"
    command: list[str | Path] = [account.python, "-m", "libcriu_py"]
    made = run_with(
        account, [*command, "snapshot", "-o", snapshot, write_program(account, directory), snapshot], env=env, **rights
    )
    if made.returncode != 0:
        return made
    return run_with(account, [*command, "run", "--no-fallback", snapshot], env=env, **rights)


def mode(name: str, criu: Path | None = None) -> dict[str, str]:
    """Return the variables that force a mode."""
    return {"LIBCRIU_PY_MODE": name, **({} if criu is None else {"LIBCRIU_PY_CRIU": str(criu)})}


def test_root_needs_a_criu_without_file_capabilities_in_a_namespace(
    own_account: Account, capable: Path, directory_of: Callable[[Account], Path]
) -> None:
    """Nothing that it starts there may gain any, so the program could not ask for its dump."""
    done = cycle(own_account, directory_of(own_account), mode("rootless", capable))
    assert done.returncode != 0
    assert "empty bounding set" in done.stderr


# ---- capability ------------------------------------------------------------


def test_one_file_capability_is_enough_with_a_full_bounding_set(
    account: Account, directory_of: Callable[[Account], Path]
) -> None:
    """CAP_CHECKPOINT_RESTORE alone; where the bounding set is reduced the lack of CAP_SETPCAP is named at once."""
    with capable_criu(account, mask=RESTORE) as criu:
        done = cycle(account, directory_of(account), mode("capability", criu))
    if bounding_is_reduced():
        assert "carries cap_checkpoint_restore and not cap_setpcap, which is needed here since" in done.stderr
        assert f"setcap cap_setpcap,cap_checkpoint_restore+eip {criu}" in done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_two_file_capabilities_are_enough_with_a_reduced_bounding_set(
    account: Account, capable: Path, directory_of: Callable[[Account], Path]
) -> None:
    """The restored program has the reduced set again, and no capability."""
    with capable_criu(account, mask=RESTORE | SETPCAP) as criu:
        done = cycle(account, directory_of(account), mode("capability", criu), without=["sys_time"])
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert int(told["effective"], 16) == 0
    assert not int(told["bounding"], 16) >> 25 & 1  # CAP_SYS_TIME


def test_no_new_privs_switches_file_capabilities_off(
    account: Account, capable: Path, directory_of: Callable[[Account], Path]
) -> None:
    """That is said before criu is started; the rootless mode does not mind."""
    done = cycle(account, directory_of(account), mode("capability", capable), no_new_privs=True)
    assert "NO_NEW_PRIVS" in done.stderr
    done = cycle(account, directory_of(account), mode("rootless"), no_new_privs=True)
    assert json.loads(done.stdout)["no_new_privs"] == "1"


def test_no_new_privs_set_by_the_program_itself_hinders_only_file_capabilities(
    account: Account, capable: Path, directory_of: Callable[[Account], Path]
) -> None:
    """A program that gives up gaining privileges is still served a criu in its namespace."""
    for name, criu in (("rootless", None), ("capability", capable)):
        directory = directory_of(account)
        program = write_program(account, directory)
        give_up = "import ctypes\nctypes.CDLL(None).prctl(38, 1, 0, 0, 0)\n"
        program.write_text(give_up + program.read_text(encoding="utf-8"), encoding="utf-8")
        snapshot = directory / "snapshot"
        argv: list[str | Path] = [account.python, "-m", "libcriu_py", "snapshot", "-o", snapshot, program, snapshot]
        made = run_with(account, argv, env=mode(name, criu))
        if name == "capability":
            assert made.returncode != 0
            assert "NO_NEW_PRIVS" in made.stderr
            return
        done = run_with(account, [account.python, "-m", "libcriu_py", "run", "--no-fallback", snapshot], env=mode(name))
        assert json.loads(done.stdout)["no_new_privs"] == "1", done.stderr


def test_a_capability_outside_the_bounding_set_is_named(
    account: Account, capable: Path, directory_of: Callable[[Account], Path]
) -> None:
    """The kernel refuses the exec of such a criu with EPERM, which says nothing."""
    done = cycle(account, directory_of(account), mode("capability", capable), without=["checkpoint_restore"])
    assert "cap_checkpoint_restore, which the capability bounding set of this process lacks" in done.stderr
    assert "--cap-add CHECKPOINT_RESTORE" in done.stderr


def test_a_criu_of_another_group_is_named(
    account: Account, own_account: Account, directory_of: Callable[[Account], Path]
) -> None:
    """The copy is for one group; who is not in it is told which."""
    with capable_criu(own_account) as criu:
        done = run_with(
            account,
            [account.python, "-m", "libcriu_py", "doctor", "--mode", "capability"],
            env={"LIBCRIU_PY_CRIU": str(account.criu)},
        )
        assert "carries no file capability" in done.stdout, done.stderr
        script = (
            "from libcriu_py.privilege.mode import Privilege\n"
            "from libcriu_py.privilege.decision import find_obstacle\n"
            f"print(find_obstacle(Privilege.CAPABILITY, {str(criu)!r}))"
        )
        done = run_with(account, [account.python, "-c", script])
    assert "members of the group root" in done.stdout, done.stderr
    assert f"usermod -aG root {account.name}" in done.stdout


def test_file_capabilities_on_a_nosuid_file_system_are_named(
    account: Account, capable: Path, directory_of: Callable[[Account], Path]
) -> None:
    """There they have no effect (mount(8), nosuid)."""
    place = directory_of(account)
    script = (
        f"mount --bind {capable.parent} {place} && mount -o remount,bind,nosuid {place} && exec setpriv "
        f"--reuid {account.uid} --regid {account.gid} --clear-groups "
        f"{account.python} -m libcriu_py doctor --mode capability"
    )
    done = subprocess.run(
        ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", script],
        env=account.environment(LIBCRIU_PY_CRIU=str(place / "criu"), PATH="/usr/sbin:/usr/bin:/sbin:/bin"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "mounted nosuid" in done.stdout, done.stderr


# ---- root ------------------------------------------------------------------


@pytest.mark.parametrize(
    "without",
    [["sys_admin"], ["sys_chroot"], ["sys_admin", "sys_ptrace", "setpcap"], ["checkpoint_restore"]],
    ids=",".join,
)
def test_root_needs_one_of_two_capabilities(
    own_account: Account, directory_of: Callable[[Account], Path], without: list[str]
) -> None:
    """CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN, and CAP_SETPCAP only for a bounding set that has to be reduced."""
    done = cycle(own_account, directory_of(own_account), mode("root"), without=without)
    if "setpcap" in without:
        assert "cap_setpcap" in done.stderr
        assert "criu refused" not in done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_root_without_either_is_told_so_and_may_go_rootless(
    own_account: Account, directory_of: Callable[[Account], Path]
) -> None:
    """As in a container with default capabilities."""
    without = ["checkpoint_restore", "sys_admin"]
    done = cycle(own_account, directory_of(own_account), mode("root"), without=without)
    assert "root has neither CAP_CHECKPOINT_RESTORE nor CAP_SYS_ADMIN here" in done.stderr
    done = cycle(own_account, directory_of(own_account), mode("auto"), without=without)
    assert done.returncode == 0, done.stderr


# ---- pids ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["root", "capability", "rootless"])
def test_a_second_copy_with_the_same_pid_lives_beside_the_first(
    account: Account, own_account: Account, capable: Path, directory_of: Callable[[Account], Path], name: str
) -> None:
    """Its pid is taken, so it gets a pid namespace of its own."""
    who = own_account if name == "root" else account
    env = mode(name, capable if name == "capability" else None)
    directory = directory_of(who)
    snapshot = directory / "snapshot"
    command: list[str | Path] = [who.python, "-m", "libcriu_py"]
    made = run_with(who, [*command, "snapshot", "-o", snapshot, write_program(who, directory), snapshot], env=env)
    assert made.returncode == 0, made.stderr
    run: list[str | Path] = [*command, "run", "--no-fallback", snapshot]
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    copies = [popen_as(who, run, env=env, **pipes) for _ in range(3)]
    answers = [copy.stdout.readline() for copy in copies if copy.stdout]
    errors = [copy.communicate("")[1] for copy in copies]
    assert errors == [""] * 3
    assert len({json.loads(answer)["pid"] for answer in answers}) == 1
    assert [copy.returncode for copy in copies] == [0] * 3


def test_root_may_do_without_the_unprivileged_mode(
    mode_named: Callable[[str], Mode], directory_of: Callable[[Account], Path]
) -> None:
    """It holds for the dump and for each restore."""
    code = """
    import sys
    from libcriu_py import checkpoint
    with checkpoint(options={"unprivileged": False}):
        pass
    print(sys.argv[1:])
    """
    root = mode_named("root")
    dump = take(root, directory_of(root.account), code)
    assert record.decode((dump.path / "launch").read_bytes()).restore_options == {"unprivileged": False}
    done = dump.run("x")
    assert done.stdout == "['x']\n", done.stderr


PROBES = """
from libcriu_py.linux import supervision
from libcriu_py.privilege import decision
asked = []
probe = supervision.probe_namespaces
supervision.probe_namespaces = lambda namespaces: asked.append(namespaces) or probe(namespaces)
criu = decision.decide("rootless").criu
before = len(asked)
decision.forget_namespaces()
for _ in range(3):
    decision.decide("rootless", criu=criu)
print(before, len(asked) - before)
"""


def test_that_namespaces_work_is_found_out_once(account: Account) -> None:
    """It is remembered until the next boot, in whatever process of the user."""
    assert run_with(account, [account.python, "-c", PROBES]).stdout.endswith(" 1\n")
    assert run_with(account, [account.python, "-c", PROBES]).stdout == "0 1\n"


# ---- cgroups ---------------------------------------------------------------


def test_a_copy_is_in_the_cgroup_of_its_launcher(own_account: Account, directory_of: Callable[[Account], Path]) -> None:
    """CRIU leaves cgroups alone without privilege, so limits of services and containers hold for copies."""
    directory = directory_of(own_account)
    program, snapshot = directory / "cgroup.py", directory / "snapshot"
    program.write_text(
        "import sys\nfrom libcriu_py import checkpoint\nwith checkpoint(sys.argv[1]):\n    pass\n"
        "print(open('/proc/self/cgroup').read())\n",
        encoding="utf-8",
    )
    command: list[str | Path] = [own_account.python, "-m", "libcriu_py"]
    made = run_with(own_account, [*command, "snapshot", "-o", snapshot, program, snapshot], env=mode("root"))
    assert made.returncode == 0, made.stderr
    group = _make_cgroup(f"lcp-{own_account.uid}-{directory.name}")
    try:
        run = shlex.join([*map(str, command), "run", "--no-fallback", str(snapshot)])
        script = f"echo $$ > {group}/cgroup.procs; exec {run}"
        for name in ("root", "rootless"):
            done = run_with(own_account, ["/bin/sh", "-c", script], env=mode(name))
            assert group.name in done.stdout, done.stderr
    finally:
        _remove_cgroup(group)


def _remove_cgroup(group: Path) -> None:
    """Remove a cgroup once its last process, a supervisor, has gone; version 1 has no news of that."""
    deadline = time.monotonic() + 10
    while (group / "cgroup.procs").read_text(encoding="ascii") and time.monotonic() < deadline:
        time.sleep(0.01)
    group.rmdir()


def _make_cgroup(name: str) -> Path:
    """Make a cgroup in the hierarchy of version 2, or of version 1 where that has the controllers."""
    candidates = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup/pids"))
    group = next(path for path in candidates if (path / "cgroup.procs").exists()) / name
    group.mkdir()
    return group


# ---- pids of children ------------------------------------------------------

HOLD = """\
import json, os, sys
from libcriu_py import checkpoint
read_end, write_end = os.pipe()
child = os.fork()
if child == 0:
    os.read(read_end, 1)
    os._exit(3)
with checkpoint(sys.argv[1]):
    pass
print(child, flush=True)
sys.stdin.read()
os.write(write_end, b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_second_tree_lives_beside_the_first(own_account: Account, directory_of: Callable[[Account], Path]) -> None:
    """The pid of a child may be the one that is taken, too."""
    directory = directory_of(own_account)
    program, snapshot = directory / "hold.py", directory / "snapshot"
    program.write_text(HOLD, encoding="utf-8")
    command: list[str | Path] = [own_account.python, "-m", "libcriu_py"]
    made = run_with(own_account, [*command, "snapshot", "-o", snapshot, program, snapshot], env=mode("root"))
    assert made.returncode == 0, made.stderr
    run: list[str | Path] = [*command, "run", "--no-fallback", snapshot]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    copies = [popen_as(own_account, run, env=mode("root"), **pipes) for _ in range(2)]
    children = [copy.stdout.readline() for copy in copies if copy.stdout]
    errors = [copy.communicate(b"")[1] for copy in copies]
    assert errors == [b""] * 2
    assert len(set(children)) == 1
    assert [copy.returncode for copy in copies] == [3, 3]
