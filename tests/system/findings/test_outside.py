"""Preflight of what comes from outside of a program: descriptors of other namespaces, devices, tracers, upgrades."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import Mode
from tests.system.selfdump import write_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account

    Directories = Callable[[Account], Path]

GPU = """
mkdir $1/dev
mount -t tmpfs tmpfs $1/dev
for name in null urandom; do
    touch $1/dev/$name
    mount --bind /dev/$name $1/dev/$name
done
touch $1/dev/nvidia0
mount --bind /dev/fuse $1/dev/nvidia0
mkdir $1/dev/shm
mount --bind /dev/shm $1/dev/shm
mount --rbind $1/dev /dev
shift
exec "$@"
"""
"""A shell script that gives a program another device under the name of a GPU."""
REPLACED = """
import mmap, os
file = open(sys.argv[1] + '/library', 'w+b')
file.write(b'x' * (2 << 20))
file.flush()
keep = mmap.mmap(file.fileno(), 2 << 20, flags=mmap.MAP_PRIVATE)
os.unlink(file.name)
file.close()
"""
"""A program whose large library was replaced."""
SURROUNDINGS = {
    "inherited file": ("exec 7<$0", 'unshare --mount "$@"', ""),
    "inherited device": ("exec 7</dev/null", 'unshare --mount "$@"', ""),
    "GPU": ("", f'unshare --mount sh -c \'{GPU}\' sh "$(dirname $0)" "$@"', "keep = open('/dev/nvidia0')"),
    "device": ("", '"$@"', "keep = open('/dev/fuse')"),
    "tracer": ("", 'strace --output=/dev/null --trace=none "$@"', ""),
    "mount namespace": ("", '"$@"', "import ctypes; assert ctypes.CDLL(None).unshare(0x20000) == 0  # CLONE_NEWNS"),
    "deleted mapping": ("", '"$@"', REPLACED),
}
"""A shell command before, how the program is started, and what it does."""


@pytest.mark.parametrize("what", SURROUNDINGS)
def test_criu_agrees_with_problems_from_outside(what: str, own_account: Account, directory_of: Directories) -> None:
    """Preflight names what criu, asked without it, refuses."""
    mode = Mode("root", "root", own_account)
    directory = directory_of(own_account)
    before, started, opening = SURROUNDINGS[what]
    code = f"import sys\nfrom libcriu_py import checkpoint\n{opening}\nwith checkpoint(sys.argv[1] + '/snap'):"
    script = write_program(mode, directory, f"{code}\n    pass\n")
    command = ["setsid", "--wait", "sh", "-c", f"{before}\n{started}", script, own_account.python, script, directory]
    named = mode.run(command)
    assert "PreflightError: this process cannot be dumped as it is:\n  1. " in named.stderr, named.stderr
    kind = "inherited file" if what.startswith("inherited") else what
    assert f". {kind} " in named.stderr
    refused = mode.run(command, env={"LIBCRIU_PY_PREFLIGHT": "off"})
    assert "OperationRefused" in refused.stderr, refused.stderr
    assert not (directory / "snap").exists()
