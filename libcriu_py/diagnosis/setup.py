"""
Install a criu with file capabilities for the members of one group.

Anyone who may execute it can give a process any capability that it carries, because the capabilities of a restored
process come from the image, which its user owns. So it is a copy, mode 0750, for one group; the criu that everybody may
execute gets no capabilities.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.errors import CriuError
from libcriu_py.linux.capabilities import bounding_is_reduced, names, needed
from libcriu_py.privilege.decision import CAPABLE_CRIU

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP = "criu"
_RECORD = "setup.json"
_SHM = "/dev/shm"  # noqa: S108 - mounted here, not written to
_FSTAB = "/etc/fstab"
_FSTAB_LINE = f"tmpfs {_SHM} tmpfs mode=1777,nosuid,nodev 0 0\n"
# struct vfs_cap_data, include/uapi/linux/capability.h
_REVISION_2 = 0x02000000
_EFFECTIVE = 1


class Plan(NamedTuple):
    """What a setup will do."""

    source: str
    """The criu that is copied."""
    target: str
    group: str
    users: tuple[str, ...]
    """Accounts that become members of the group."""
    mask: int
    """The file capabilities of the copy."""
    makes_group: bool
    mounts_tmpfs: bool = False
    """Whether to mount a tmpfs on /dev/shm; criu keeps its cache of kernel features only on a tmpfs."""

    def steps(self) -> list[str]:
        """Return what will be done, one sentence for each step."""
        steps = [f"make the group {self.group}"] if self.makes_group else []
        steps += [f"add {user} to the group {self.group}" for user in self.users]
        steps += [
            f"copy {self.source} to {self.target}, owner root, group {self.group}, mode 0750",
            f"give the copy {names(self.mask)}",
        ]
        if self.mounts_tmpfs:
            steps.append(
                f"mount a tmpfs on {_SHM}, now and at each boot ({_FSTAB}), for criu's cache of kernel features"
            )
        return steps


def plan(
    *, source: str | None = None, target: str = CAPABLE_CRIU, group: str = GROUP, users: Sequence[str] = ()
) -> Plan:
    """
    Plan the setup, with the fewest capabilities that work on this machine.

    Args:
        source: The criu to copy; None to find it.
        target: Where the copy goes.
        group: Who may execute it.
        users: Accounts to make members of the group.

    Returns:
        The plan.

    Raises:
        BinaryNotFound: There is no criu.
        CriuError: There is no such account.
    """
    from libcriu_py.criu.find import find_criu

    mask = needed(reduced=bounding_is_reduced(), dump=False)
    missing = [user for user in users if not _exists(user)]
    if missing:
        message = f"there is no account {missing[0]}"
        raise CriuError(message)
    new_members = tuple(user for user in users if user not in _members(group))
    from libcriu_py.diagnosis.facts import is_tmpfs

    mounts = os.path.isdir(_SHM) and not is_tmpfs(_SHM)
    return Plan(source or find_criu(), os.path.abspath(target), group, new_members, mask, not _has_group(group), mounts)


def install(planned: Plan) -> None:
    """
    Carry out a plan; repeating it updates the copy.

    Args:
        planned: What `plan` returned.

    Raises:
        CriuError: It failed; the message says why.
    """
    if planned.makes_group:
        _run(["groupadd", "--system", planned.group])
    for user in planned.users:
        _run(["gpasswd", "--add", user, planned.group])
    directory = os.path.dirname(planned.target)
    try:
        made = _make_directory(directory)
        _copy(planned)
        _write_record(planned, made_directory=made)
        if planned.mounts_tmpfs:
            _mount_tmpfs()
    except OSError as error:
        message = f"{error.filename or planned.target}: {error.strerror}; only root can set this up; use sudo"
        raise CriuError(message) from error


def _mount_tmpfs() -> None:
    _run(["mount", "-t", "tmpfs", "-o", "mode=1777,nosuid,nodev", "tmpfs", _SHM])
    with open(_FSTAB, "a", encoding="utf-8") as file:
        file.write(_FSTAB_LINE)


def _unmount_tmpfs() -> list[str]:
    with open(_FSTAB, encoding="utf-8", errors="surrogateescape") as file:
        lines = file.readlines()
    with open(_FSTAB, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(line for line in lines if line != _FSTAB_LINE)
    _run(["umount", _SHM])
    return [f"unmounted {_SHM}"]


def _make_directory(directory: str) -> bool:
    if os.path.isdir(directory):
        return False
    os.makedirs(directory)
    os.chmod(directory, 0o755)  # noqa: S103 - like other directories of programs
    return True


def _copy(planned: Plan) -> None:
    """Put the copy in place in one step; it has no capabilities until others are locked out."""
    temporary = f"{planned.target}.new-{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(planned.source, "rb") as source, os.fdopen(fd, "wb") as target:
            shutil.copyfileobj(source, target)
        os.chown(temporary, 0, grp.getgrnam(planned.group).gr_gid)
        os.chmod(temporary, 0o750)  # noqa: S103 - its purpose is to be executable for the group
        set_file_capabilities(temporary, planned.mask)
        os.rename(temporary, planned.target)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def set_file_capabilities(program: str, mask: int) -> None:
    """Set a program's permitted, inheritable and effective file capabilities, as `setcap MASK+eip` does."""
    low, high = mask & 0xFFFFFFFF, mask >> 32
    words = (_REVISION_2 | _EFFECTIVE, low, low, high, high)
    os.setxattr(program, "security.capability", b"".join(word.to_bytes(4, "little") for word in words))


def _write_record(planned: Plan, *, made_directory: bool) -> None:
    """Record what an undo must do, in addition to what earlier setups recorded."""
    path = _record(planned.target)
    before = _read_record(planned.target)
    record = {
        "group": planned.group,
        "made_group": planned.makes_group or bool(before.get("made_group") and before.get("group") == planned.group),
        "users": sorted({*before.get("users", []), *planned.users}),
        "made_directory": made_directory or bool(before.get("made_directory")),
        "mounted_tmpfs": planned.mounts_tmpfs or bool(before.get("mounted_tmpfs")),
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
    os.chmod(path, 0o644)


def _record(target: str) -> str:
    return os.path.join(os.path.dirname(target), _RECORD)


def _read_record(target: str) -> dict[str, Any]:
    try:
        with open(_record(target), encoding="utf-8") as file:
            record: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        return {}
    return record


def undo(target: str = CAPABLE_CRIU) -> list[str]:
    """
    Undo what `install` did.

    Args:
        target: Where the copy is.

    Returns:
        What was done, one sentence each; empty if there was nothing to undo.

    Raises:
        CriuError: It failed; the message says why.
    """
    record = _read_record(target)
    done = []
    try:
        for path in (target, _record(target)):
            if os.path.lexists(path):
                os.unlink(path)
                done.append(f"removed {path}")
        if record.get("made_directory") and not os.listdir(os.path.dirname(target)):
            os.rmdir(os.path.dirname(target))
        if record.get("mounted_tmpfs"):
            done += _unmount_tmpfs()
    except OSError as error:
        message = f"{error.filename}: {error.strerror}; only root can undo this; use sudo"
        raise CriuError(message) from error
    return done + _undo_group(record)


def _undo_group(record: dict[str, Any]) -> list[str]:
    group, users, done = str(record.get("group", "")), record.get("users"), []
    for user in users if isinstance(users, list) else []:
        if _exists(user) and user in _members(group):
            _run(["gpasswd", "--delete", user, group])
            done.append(f"removed {user} from the group {group}")
    if record.get("made_group") and _has_group(group):
        _run(["groupdel", group])
        done.append(f"removed the group {group}")
    return done


def _run(command: list[str]) -> None:
    program = next(
        (found for path in ("/usr/sbin", "/usr/bin") if os.access(found := f"{path}/{command[0]}", os.X_OK)), None
    )
    if program is None:
        message = f"there is no {command[0]} here; install the package passwd (or shadow)"
        raise CriuError(message)
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}"
        raise CriuError(message)


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _has_group(group: str) -> bool:
    try:
        grp.getgrnam(group)
    except KeyError:
        return False
    return True


def _members(group: str) -> list[str]:
    try:
        return grp.getgrnam(group).gr_mem
    except KeyError:
        return []
