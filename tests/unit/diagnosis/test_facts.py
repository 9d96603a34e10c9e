"""The parts of the doctor that read files and weigh facts."""

from __future__ import annotations

import os
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import libcriu_py
from libcriu_py.diagnosis import Diagnosis, Report, can_run, facts, modes, syscalls
from libcriu_py.linux import capabilities
from libcriu_py.linux.mounts import mounts
from libcriu_py.privilege import obstacles
from libcriu_py.privilege.mode import Obstacle, Privilege, groups_in

GOOD: dict[str, dict[str, Any]] = {
    "criu": {
        "path": "/usr/sbin/criu",
        "version": "4.2.1",
        "problem": None,
        "static": True,
        "libraries": 0,
        "start": 0.0007,
        "least_start": 0.0006,
    },
    "kernel": {"release": "6.1.0-13-amd64", "checkpoint_restore": True, "system_calls": {"ptrace": "ok"}},
    "process": {"uid": 1000, "pid": 4711, "no_new_privs": False},
    "namespaces": {"container": False},
    "security": {"yama": None},
    "proc": {"subset": None},
    "storage": {"problem": None, "cache": "/dev/shm/x", "cache_on_tmpfs": True},
    "limits": {"nofile": [1024, 4096]},
}


def with_facts(section: str, **changed: Any) -> dict[str, dict[str, Any]]:
    """Return the facts of a good machine with some of them changed."""
    told = deepcopy(GOOD)
    told[section].update(changed)
    return told


# ---- what is read ----------------------------------------------------------


def test_the_system_shell_is_recognised_as_dynamic_and_no_script_as_either(tmp_path: Path) -> None:
    """The answer is in the program headers of an ELF file; another file has no answer."""
    assert facts.is_static("/proc/self/exe") is False
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n", encoding="ascii")
    assert facts.is_static(str(script)) is None
    assert facts.is_static(str(tmp_path / "missing")) is None


def test_a_static_program_is_recognised(tmp_path: Path) -> None:
    """Compiled here, since no distribution promises one."""
    source, program = tmp_path / "main.c", tmp_path / "main"
    source.write_text("int main(void) { return 0; }\n", encoding="ascii")
    subprocess.run(["/usr/bin/cc", "-static", "-o", program, source], check=True)
    assert facts.is_static(str(program)) is True


def test_a_tmpfs_is_told_from_other_file_systems() -> None:
    """A path belongs to the longest mount point above it."""
    assert not facts.is_tmpfs("/proc/self")
    for mount in mounts():
        if mount.kind == "tmpfs" and Path(mount.point).is_dir():
            assert facts.is_tmpfs(mount.point)


def test_nothing_is_refused_without_a_filter() -> None:
    """The kernel's own answers to the probes are known."""
    if obstacles.seccomp_mode() == 0:
        assert set(syscalls.probe().values()) <= {"ok"}


def test_an_unknown_errno_is_no_good_answer() -> None:
    """A call that answers otherwise than the kernel would is reported by the name of what it answered."""
    getpid_of_x86_64 = 39
    if os.uname().machine == "x86_64":
        assert syscalls._try(getpid_of_x86_64, (), 22, None) == "a different answer than the kernel's"


def test_gathered_facts_are_plain_data() -> None:
    """They go into JSON as they are."""
    import json

    told = facts.gather()
    assert json.loads(json.dumps(told)) == told
    assert told["process"]["uid"] == os.geteuid()


# ---- what is weighed -------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "text", "command"),
    [
        (with_facts("criu", path=None, problem="there is no criu program here: install it with x"), "no criu", "criu"),
        (with_facts("criu", version=None, problem="broken"), "/usr/sbin/criu does not run: broken", "criu"),
        (with_facts("criu", version="3.17.1"), "3.18 or newer", "criu"),
        (with_facts("kernel", checkpoint_restore=False), "CONFIG_CHECKPOINT_RESTORE", "kernel"),
        (with_facts("proc", subset="pid"), "subset=pid", "mount -t proc proc /proc"),
        (with_facts("security", yama="3"), "until the next boot", "ptrace_scope"),
        (with_facts("storage", problem="/dev/shm/x is not a directory"), "not a directory", "rm -r /dev/shm/x"),
    ],
    ids=["no criu", "broken criu", "old criu", "kernel", "subset", "Yama", "cache"],
)
def test_what_stops_every_mode_is_named_first(told: dict[str, Any], text: str, command: str) -> None:
    """Whatever the mode, with a command."""
    for mode in (Privilege.ROOT, Privilege.CAPABILITY, Privilege.ROOTLESS):
        found = modes.find_obstacle(mode, told)
        assert found is not None
        assert text in found.text
        assert command in found.command


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (with_facts("storage", cache_on_tmpfs=False), "not on a tmpfs"),
        (with_facts("process", pid=1), "this is pid 1"),
        (with_facts("process", no_new_privs=True), "NO_NEW_PRIVS"),
        (
            with_facts("criu", start=0.0058, libraries=20),
            "takes 5.8 ms to start with 20 shared libraries: each copy would start 5.2 ms sooner",
        ),
        (with_facts("limits", nofile=[64, 64]), "only 64 files"),
        (with_facts("kernel", system_calls={"kcmp": "EPERM"}), "kcmp (EPERM)"),
    ],
    ids=["tmpfs", "pid 1", "no new privileges", "slow criu", "few files", "refused call"],
)
def test_what_stops_no_mode_is_a_note(told: dict[str, Any], text: str) -> None:
    """One for each, and none where all is well."""
    assert [note for note in modes.notes(told) if text in note.text]
    assert not list(modes.notes(GOOD))


# ---- words -----------------------------------------------------------------


def test_an_obstacle_reads_as_a_sentence_with_its_command() -> None:
    """Where there is a command it is said who runs it."""
    assert str(Obstacle("it is closed", "open it", "root")) == "it is closed (root: open it)"
    assert str(Obstacle("it is closed")) == "it is closed"


def test_only_roots_commands_are_run_and_only_by_root() -> None:
    """Others are for other people, or other places."""
    assert can_run(Obstacle("x", "sysctl -w a=b", "root")) == (os.geteuid() == 0)
    assert not can_run(Obstacle("x", "docker run", "whoever starts the container"))
    assert not can_run(Obstacle("x", "", "root"))


def test_a_report_is_plain_data_and_knows_what_works() -> None:
    """For JSON, by mode."""
    stopped = Diagnosis(Privilege.ROOT, Obstacle("no", "sudo", "you"))
    works = Diagnosis(Privilege.ROOTLESS, None, 0.5, 0.1)
    report = Report({}, (stopped, works), ())
    assert report.works == (Privilege.ROOTLESS,)
    told = report.as_dict()["modes"]
    assert told == {
        "root": {
            "works": False,
            "obstacle": {"text": "no", "command": "sudo", "who": "you"},
            "dump": None,
            "restore": None,
        },
        "rootless": {"works": True, "obstacle": None, "dump": 0.5, "restore": 0.1},
    }


# ---- capabilities ----------------------------------------------------------


def test_capabilities_have_the_kernels_numbers() -> None:
    """The names are in the order of include/uapi/linux/capability.h."""
    assert capabilities.NAMES[capabilities.CAP_SETPCAP] == "cap_setpcap"
    assert capabilities.NAMES[capabilities.CAP_SYS_PTRACE] == "cap_sys_ptrace"
    assert capabilities.NAMES[capabilities.CAP_SYS_ADMIN] == "cap_sys_admin"
    assert capabilities.NAMES[capabilities.CAP_CHECKPOINT_RESTORE] == "cap_checkpoint_restore"
    assert capabilities.names(1 << 40 | 1 << 8) == "cap_setpcap,cap_checkpoint_restore"
    assert capabilities.names(1 << 63) == "63"


def test_those_of_this_process_are_those_of_proc() -> None:
    """As far as /proc tells."""
    held = capabilities.capabilities()
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    assert f"CapBnd:\t{held.bounding:016x}" in status
    assert held.effective & ~held.permitted == 0


def test_a_program_without_file_capabilities_has_none(tmp_path: Path) -> None:
    """Nor has one that is not there."""
    program = tmp_path / "program"
    program.touch()
    assert capabilities.file_capabilities(str(program)) == 0
    assert capabilities.file_capabilities(str(tmp_path / "missing")) == 0


def test_restores_need_setpcap_only_for_a_reduced_set() -> None:
    """And dumps never."""
    traced = capabilities.yama() and 1 << capabilities.CAP_SYS_PTRACE
    full = capabilities.needed(reduced=False, dump=False)
    assert full & ~(traced or 0) == 1 << capabilities.CAP_CHECKPOINT_RESTORE
    assert capabilities.needed(reduced=True, dump=False) ^ full == 1 << capabilities.CAP_SETPCAP


def test_groups_are_sorted_and_unmapped_ones_read_as_nobodys() -> None:
    """In a namespace only the own group has a number."""
    assert groups_in(Privilege.CAPABILITY) == sorted(os.getgroups())
    overflow = int(Path("/proc/sys/kernel/overflowgid").read_text(encoding="ascii"))
    assert set(groups_in(Privilege.ROOTLESS)) <= {os.getegid(), overflow}


def test_the_copy_of_setup_is_never_open_to_all(tmp_path: Path) -> None:
    """What it plans is for one group, and says so."""
    from libcriu_py.diagnosis import setup

    source = tmp_path / "criu"
    source.write_bytes(b"\x7fELF")
    plan = setup.plan(source=str(source), target=str(tmp_path / "copy" / "criu"), group="no-such-group")
    steps = plan.steps()
    assert steps[0] == "make the group no-such-group"
    assert "mode 0750" in steps[1]
    assert "cap_checkpoint_restore" in steps[2]


@pytest.mark.parametrize(
    "criu",
    [
        {"path": None, "problem": "there is no criu program here: install it with something"},
        {"version": None, "problem": "no"},
        {"version": "3.17.1"},
    ],
)
def test_pip_installs_criu_where_there_is_no_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, criu: dict[str, str | None]
) -> None:
    """Not the distribution, whose criu may be too old for the kernel; in a source tree its own script does."""
    told = with_facts("criu", **criu)
    found = modes.find_obstacle(Privilege.ROOT, told)
    assert found is not None
    assert found.command.endswith("/scripts/install-criu")
    monkeypatch.setattr(libcriu_py, "__file__", str(tmp_path / "libcriu_py" / "__init__.py"))
    found = modes.find_obstacle(Privilege.ROOT, told)
    assert found is not None
    assert (found.command, found.who) == ("pip install 'libcriu-py[criu]'", obstacles.YOU)


@pytest.mark.parametrize(
    ("version", "kernel", "old"),
    [
        ("4.1.1", "6.16.0", True),
        ("3.19", "6.18.44-fc-v782", True),
        ("4.2.1", "6.18.44", False),
        ("4.1.1", "6.12.9+deb13-amd64", False),
        ("4.10", "7.0.1", False),
    ],
)
def test_a_criu_may_be_too_old_for_the_kernel(version: str, kernel: str, *, old: bool) -> None:
    """The doctor then says what it cannot dump, though a mode may work."""
    told = with_facts("criu", version=version)
    told["kernel"]["release"] = kernel
    said = [note.text for note in modes.notes(told) if "too old for Linux" in note.text]
    assert bool(said) == old
