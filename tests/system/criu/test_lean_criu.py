"""
The criu that scripts/install-criu builds lean: what it loads, and that it does all that is used here.

Those in question are that of the package and those of `LIBCRIU_PY_TEST_PREFIXES` (`make test` builds a lean one and a
full one). The tests of the binding and of mapped memory run with the same ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from libcriu_py.criu.client import Criu
from libcriu_py.criu.native import built_prefix
from libcriu_py.criu.options import DumpOptions, NetworkLock, PageServer, RestoreOptions
from libcriu_py.diagnosis.facts import is_static
from libcriu_py.errors import OperationRefused
from tests.system.accounts import run_as
from tests.system.privileges import capable_criu
from tests.system.selfdump import take
from tests.system.targets import KDAT, Target, finish_child

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

NEEDED = ("protobuf-c", "nl-3", "net", "uuid")
"""The libraries without which CRIU does not build, beside libc."""

FIXED = """
#include <signal.h>
#include <unistd.h>

static unsigned char data[8 << 20] = {1};

int main(void)
{
	sigset_t set;
	unsigned long i;
	int number;

	for (i = 0; i < sizeof(data); i++)
		data[i] = i * 7 / 3;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (write(1, "ready", 5) != 5)
		return 1;
	close(1);
	sigwait(&set, &number);
	for (i = 0; i < sizeof(data); i++)
		if (data[i] != (unsigned char)(i * 7 / 3))
			return 2;
	return 42;
}
"""
"""A program that ends with status 42 after SIGUSR1, if its 8 MiB from 0x400000 on are what they were."""


def built(kind: str) -> list[str]:
    """Return the prefixes that scripts/install-criu has built in a way."""
    prefixes = dict.fromkeys([built_prefix(), *os.environ.get("LIBCRIU_PY_TEST_PREFIXES", "").split(":")])
    stamps = {prefix: Path(prefix, ".stamp") for prefix in prefixes if prefix}
    return [prefix for prefix, stamp in stamps.items() if stamp.exists() and stamp.read_text().strip().endswith(kind)]


@pytest.fixture(params=built("lean"))
def criu(request: pytest.FixtureRequest) -> Path:
    """Each of the lean ones."""
    return Path(request.param, "sbin", "criu")


def archive(library: str) -> bool:
    """Return whether the toolchain has a library as a static archive."""
    argv = ["/usr/bin/cc", f"-print-file-name=lib{library}.a"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.startswith("/")


def test_no_library_is_loaded_that_need_not_be(criu: Path) -> None:
    """With all static archives there it is static; else it loads libc, and what has no archive."""
    told = subprocess.run(["/usr/bin/readelf", "-d", criu], check=True, capture_output=True, text=True).stdout
    loaded = set(re.findall(r"NEEDED.*\[lib(.*)\.so", told))
    missing = {library for library in NEEDED if not archive(library)}
    assert loaded <= {*missing, "c"}
    assert is_static(str(criu)) == (not missing and archive("c"))


def test_a_start_costs_no_more_than_that_of_a_small_program(criu: Path) -> None:
    """In page faults, which are most of it: `true`, with libc alone, takes 60; criu with all its libraries 300."""
    assert faults(str(criu), "--version") < 1.5 * faults("/bin/true", "--version")


def faults(*argv: str) -> int:
    """Count the page faults of a program, from its fork to its end."""
    pid = os.posix_spawn(argv[0], argv, {}, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
    _, status, usage = os.wait4(pid, 0)
    assert status == 0
    return usage.ru_minflt


def test_programs_that_checkpoint_themselves(criu: Path, mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """Dump and copies, in each mode."""
    with contextlib.ExitStack() as stack:
        directory = directory_of(mode.account)
        if mode.criu is None:
            used = Path(shutil.copy2(criu, directory))
        else:
            used = stack.enter_context(capable_criu(mode.account, source=criu))
        env = {"LIBCRIU_PY_CRIU": str(used)}
        snapshot = take(mode, directory, env=env)
        told = snapshot.report("x", input="here", env=env)
        assert (told["outcome"], told["argv"], told["stdin"]) == ("restored", [b"x".hex()], "here")


def test_a_program_at_the_same_addresses_is_restored(criu: Path, tmp_path: Path) -> None:
    """Programs with a fixed address, as Debian's Python is one, lie where a static criu lies itself."""
    program = tmp_path / "program"
    (tmp_path / "main.c").write_text(FIXED, encoding="ascii")
    subprocess.run(["/usr/bin/cc", "-static", "-no-pie", "-o", program, tmp_path / "main.c"], check=True)
    read_end, write_end = os.pipe()
    with subprocess.Popen(
        [program], stdin=subprocess.DEVNULL, stdout=write_end, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        os.close(write_end)
        assert os.read(read_end, 9) == b"ready"
        assert os.read(read_end, 9) == b""  # closed, so that the pipe is not dumped
        os.close(read_end)
        options = DumpOptions(images_dir=tmp_path, pid=process.pid, log_file="dump.log", unprivileged=True)
        Criu(str(criu)).dump(options, env=KDAT)
    again = RestoreOptions(images_dir=tmp_path, log_file="restore.log", unprivileged=True)
    for _ in range(2):
        assert finish_child(Criu(str(criu)).restore_child(again, env=KDAT)) == 42


def test_a_page_server_is_found_by_its_name(criu: Path, tmp_path: Path) -> None:
    """A static program has libc's own resolver too."""
    images, pages = tmp_path / "images", tmp_path / "pages"
    images.mkdir()
    pages.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    read_end, write_end = os.pipe()
    argv: list[str | Path] = [criu, "page-server", "--images-dir", pages, "-o", "server.log", "--address", "127.0.0.1"]
    argv += ["--port", str(port), "--status-fd", str(write_end)]
    with subprocess.Popen(argv, pass_fds=(write_end,), stderr=subprocess.DEVNULL) as server:
        os.close(write_end)
        os.read(read_end, 1)
        os.close(read_end)
        with Target("wait_for_usr1()") as target:
            server_at = PageServer("localhost", port)
            options = DumpOptions(images_dir=images, pid=target.pid, unprivileged=True, page_server=server_at)
            Criu(str(criu)).dump(options, env=KDAT)
        assert server.wait(10) == 0
    assert list(pages.glob("pages-*.img"))


def test_what_is_left_out_is_named_with_what_has_it(criu: Path, tmp_path: Path) -> None:
    """Nothing is lost: the process goes on, and the message tells how to get a criu that can do it."""
    code = """
    import socket
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    accepted, _ = server.accept()
    wait_for_usr1()
    """
    with Target(code) as target:
        lock = DumpOptions(
            images_dir=tmp_path,
            pid=target.pid,
            log_file="dump.log",
            tcp_established=True,
            network_lock=NetworkLock.NFTABLES,
        )
        with pytest.raises(OperationRefused, match="scripts/install-criu --full"):
            Criu(str(criu)).dump(lock, env=KDAT)
        assert target.finish() == 42


# ---- what the doctor says --------------------------------------------------


def examine(account: Account, criu: Path) -> tuple[dict[str, Any], list[str]]:
    """Let the doctor look at a criu; give its facts of that, and the commands for what is slow about it."""
    argv = [account.python, "-m", "libcriu_py", "doctor", "--mode", "root", "--json"]
    told = json.loads(run_as(account, argv, env={"LIBCRIU_PY_CRIU": str(criu)}).stdout)
    slow = [note["command"] for note in told["notes"] if "to start" in note["text"]]
    return told["facts"]["criu"], slow


def test_the_doctor_has_nothing_to_say_about_it(criu: Path, own_account: Account) -> None:
    """Its start is measured beside that of a small program, and costs about as much."""
    facts, slow = examine(own_account, criu)
    assert 0 < facts["start"] < facts["least_start"] + 0.002
    assert facts["libraries"] <= len(NEEDED) + 3  # libc, the dynamic linker, and one that libnet may want
    assert slow == []


@pytest.mark.parametrize("prefix", built("full"))
def test_the_doctor_says_what_a_full_one_costs(prefix: str, own_account: Account) -> None:
    """With the command that gets a lean one, where it costs enough."""
    facts, slow = examine(own_account, Path(prefix, "sbin", "criu"))
    assert facts["libraries"] > 10
    if facts["start"] - facts["least_start"] >= 0.002:
        assert slow[0].endswith("scripts/install-criu --from-source")
    else:
        assert slow == []
