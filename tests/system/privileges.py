"""Programs run with more or fewer rights than an account has by itself."""

from __future__ import annotations

import contextlib
import grp
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from libcriu_py.diagnosis import setup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.system.accounts import Account

PROGRAM = """\
import json, os, sys
from libcriu_py import checkpoint
with checkpoint(sys.argv[1]):
    pass
lines = open("/proc/self/status").read().splitlines()
status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
seen = {
    "argv": sys.argv[1:], "pid": os.getpid(), "uid": os.getuid(), "gid": os.getgid(), "groups": sorted(os.getgroups()),
    "effective": status["CapEff"], "bounding": status["CapBnd"], "no_new_privs": status["NoNewPrivs"],
}
print(json.dumps(seen), flush=True)
sys.stdin.read()
"""
"""
A program that checkpoints itself in the directory it is given, and later tells who it is and waits for the end of
its input.
"""


def run_with(
    account: Account,
    argv: Sequence[str | Path],
    *,
    groups: Sequence[int] = (),
    gid: int | None = None,
    without: Sequence[str] = (),
    no_new_privs: bool = False,
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """
    Run a program as an account, which takes root.

    Args:
        account: Who runs it.
        argv: The program and its arguments.
        groups: Its supplementary groups.
        gid: Its group, if not the account's.
        without: Capabilities, without "cap_", that are taken out of the bounding set; root loses them at once.
        no_new_privs: Whether NO_NEW_PRIVS is set.
        env: Variables beside those of a fresh login.
        options: As of `subprocess.run`.
    """
    command = ["/usr/bin/setpriv", "--reuid", str(account.uid), "--regid", str(account.gid if gid is None else gid)]
    command += ["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]
    if without:
        command += ["--bounding-set", ",".join(f"-{name}" for name in without)]
    if no_new_privs:
        command.append("--no-new-privs")
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 60, **options}
    if "input" in options:
        del options["stdin"]
    options.setdefault("cwd", account.home)
    environment = account.environment(**(env or {}))
    return subprocess.run([*command, *map(str, argv)], env=environment, check=False, **options)


@contextlib.contextmanager
def capable_criu(account: Account, *, mask: int | None = None, source: Path | None = None) -> Iterator[Path]:
    """
    Install a criu with file capabilities that the account and root may execute.

    Args:
        account: Who may.
        mask: The capabilities; those that are needed here if not given.
        source: The criu that is copied; that of the test run if not given.
    """
    # Where others can get at it and file capabilities count, which they do not on a nosuid file system.
    with tempfile.TemporaryDirectory(prefix="lcp-criu-", dir="/usr/local/lib") as directory:
        Path(directory).chmod(0o755)
        group = grp.getgrgid(account.gid).gr_name
        plan = setup.plan(source=str(source or account.criu), target=f"{directory}/criu", group=group)
        setup.install(plan if mask is None else plan._replace(mask=mask))
        yield Path(directory) / "criu"
        setup.undo(plan.target)


def write_program(account: Account, directory: Path) -> Path:
    """Put the program into a directory."""
    path = directory / "who.py"
    path.write_text(PROGRAM, encoding="utf-8")
    account.give(path)
    return path
