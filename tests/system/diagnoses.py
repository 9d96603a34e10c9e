"""Calls of the doctor, and what it says."""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

from tests.system import containers

if TYPE_CHECKING:
    from tests.system.accounts import Account


def command(account: Account, *arguments: str) -> list[str]:
    """Return the command line of the doctor."""
    return [str(account.python), "-m", "libcriu_py", "doctor", *arguments]


def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Read a report in JSON."""
    assert done.stdout, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def examine(account: Account, **limits: Any) -> dict[str, Any]:
    """Call the doctor into a container."""
    return report(containers.run(command(account, "--json"), account=account, **limits))


def obstacle(told: dict[str, Any], mode: str) -> dict[str, str]:
    """Return what stops a mode."""
    found: dict[str, str] | None = told["modes"][mode]["obstacle"]
    assert found is not None, f"{mode} works"
    return found


def under(account: Account, script: str, *, as_root: bool = False) -> dict[str, Any]:
    """Call the doctor from a shell script of root's, in which $DOCTOR is the command."""
    doctor = shlex.join(command(account, "--json"))
    if not as_root:
        doctor = f"setpriv --reuid {account.uid} --regid {account.gid} --clear-groups {doctor}"
    done = subprocess.run(
        ["/bin/sh", "-ec", script],
        env=account.environment(DOCTOR=doctor, PATH="/usr/sbin:/usr/bin:/sbin:/bin"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return report(done)
